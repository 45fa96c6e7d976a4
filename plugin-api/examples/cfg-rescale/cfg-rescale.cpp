/* cfg-rescale: a plugin that has the last word on guidance. Strong guidance raises contrast; this takes it back.
 *
 *     c++ -std=c++17 -shared -fPIC -O2 -I ../../include cfg-rescale.cpp -o cfg-rescale.so
 *     mkdir -p ~/.local/share/latentd/plugins && cp cfg-rescale.so ~/.local/share/latentd/plugins/
 *
 * Then "plugins": {"cfg-rescale": {"phi": 0.7}} in a request.
 *
 * Lin, Liu, Li, Yang: "Common Diffusion Noise Schedules and Sample Steps are Flawed", WACV 2024, section 3.4:
 *
 *     rescaled = guided · σ_pos / σ_cfg          out = φ · rescaled + (1 − φ) · guided
 *
 * with σ the standard deviation over all numbers of one picture: σ_pos of what the prompt alone predicts, σ_cfg of `guided`.
 * (torch.std, so with n − 1; the quotient is the same with n.) "What the prompt alone predicts" is guidance at scale 1,
 * uncond + Σ weight · mask · (cond − uncond), which for one prompt is its row as it is.
 *
 * The paper does this to what the network predicts, v. The host gives samples, so `space` "v" goes there and back, whatever
 * the network predicts, as ComfyUI's RescaleCFG does; this is k-diffusion's scaling of v with data of unit variance:
 *
 *     v = (x / (σ² + 1) − sample) · √(σ² + 1) / σ          sample = x / (σ² + 1) − v · σ / √(σ² + 1)
 *
 * where σ is the noise level and x the noisy latents. With "sample" nothing is converted.
 */

#include <cmath>
#include <new>
#include <vector>

#include "latentd.h"
#include "latentd_msgpack.h"

LATENTD_MANIFEST_FILE("cfg-rescale.toml");

namespace {

const latentd_host *host;
const latentd_tensors *tensors;

struct CfgRescale {
    double phi;
    bool in_v;
};

/* A tensor's numbers to be read, in logical order without gaps. */
struct Numbers {
    const float *data = nullptr;
    int64_t n = 0, channels = 0, h = 0, w = 0;

    const float *at(int64_t i) const { return data + i * channels * h * w; }
};

latentd_status read(latentd_call *call, latentd_handle handle, Numbers *numbers) {
    latentd_tensor_info info{};
    info.size = sizeof info;
    if (latentd_status status = tensors->info(call, handle, &info)) return status;
    if (info.ndim != 4) return host->fail(call, LATENTD_UNSUPPORTED, LATENTD_TEXT("latents have four dimensions"));
    latentd_map map{};
    map.size = sizeof map;
    map.mode = LATENTD_READ;
    map.code = LATENTD_FLOAT;
    map.bits = 32;
    map.lanes = 1;
    map.layout = LATENTD_DENSE;
    if (latentd_status status = tensors->map(call, handle, &map)) return status;
    *numbers = { static_cast<const float *>(map.data), info.shape[0], info.shape[1], info.shape[2], info.shape[3] };
    return LATENTD_OK;
}

/* A tensor of the same shape that is to be filled, in the order of its numbers. */
latentd_status make(latentd_call *call, const Numbers &like, latentd_handle *handle, float **data) {
    latentd_tensor_info info{};
    info.size = sizeof info;
    info.kind = LATENTD_TENSOR;
    info.ndim = 4;
    const int64_t shape[4] = { like.n, like.channels, like.h, like.w };
    for (int i = 0; i < 4; i++) info.shape[i] = shape[i];
    if (latentd_status status = tensors->alloc(call, &info, handle)) return status;
    latentd_map map{};
    map.size = sizeof map;
    map.mode = LATENTD_REPLACE;
    map.layout = LATENTD_DENSE; /* as tensors that the host allocates are stored */
    if (latentd_status status = tensors->map(call, *handle, &map)) return status;
    *data = static_cast<float *>(map.data);
    return LATENTD_OK;
}

double deviation(const std::vector<double> &values) {
    double mean = 0, sum = 0;
    for (double value : values) mean += value;
    mean /= static_cast<double>(values.size());
    for (double value : values) sum += (value - mean) * (value - mean);
    return values.size() > 1 ? std::sqrt(sum / static_cast<double>(values.size() - 1)) : 0;
}

/* What guidance at scale 1 makes of a picture's rows. `found` says whether it has one to steer away from and one to go to. */
latentd_status positive(latentd_call *call, const latentd_eval *eval, const Numbers &outputs, uint32_t image,
                        std::vector<double> *sum, bool *found) {
    const latentd_row *uncond = nullptr;
    const float *base = nullptr;
    bool wanted = false;
    *found = false;
    for (uint32_t i = 0; i < eval->rows.count; i++) {
        const latentd_row *row = LATENTD_AT(latentd_row, eval->rows, i);
        if (row->image != image || row->tag.length || row->role != LATENTD_UNCOND) continue;
        uncond = row;
        base = outputs.at(i);
    }
    if (!uncond) return LATENTD_OK;
    const int64_t plane = outputs.h * outputs.w, count = outputs.channels * plane;
    sum->assign(base, base + count);
    for (uint32_t i = 0; i < eval->rows.count; i++) {
        const latentd_row *row = LATENTD_AT(latentd_row, eval->rows, i);
        if (row->image != image || row->tag.length || row->role != LATENTD_COND) continue;
        Numbers mask;
        if (row->mask) {
            if (latentd_status status = read(call, row->mask, &mask)) return status;
            if (mask.h != outputs.h || mask.w != outputs.w)
                return host->fail(call, LATENTD_UNSUPPORTED, LATENTD_TEXT("a mask is not of its latents' size"));
        }
        const float *cond = outputs.at(i);
        for (int64_t k = 0; k < count; k++) {
            double where = mask.data ? mask.data[k % plane] : 1.0;
            (*sum)[k] += row->weight * where * (static_cast<double>(cond[k]) - base[k]);
        }
        wanted = true;
    }
    *found = wanted;
    return LATENTD_OK;
}

latentd_status combine(const CfgRescale &self, latentd_call *call, const latentd_denoise *args) {
    const latentd_eval *eval = args->eval;
    const double sigma = eval->sigma, scale = std::sqrt(sigma * sigma + 1);
    if (self.phi == 0 || (self.in_v && sigma <= 0)) return LATENTD_SKIP;
    if (self.in_v && eval->prediction != LATENTD_PREDICTS_NOISE && eval->prediction != LATENTD_PREDICTS_VELOCITY
        && eval->prediction != LATENTD_PREDICTS_SAMPLE)
        return host->fail(call, LATENTD_UNSUPPORTED,
                          LATENTD_TEXT("v is another thing in this model; set space to \"sample\""));
    bool any = false;
    for (uint32_t i = 0; i < eval->rows.count; i++) {
        const latentd_row *row = LATENTD_AT(latentd_row, eval->rows, i);
        any = any || (row->role == LATENTD_UNCOND && !row->tag.length);
    }
    if (!any) return LATENTD_SKIP; /* nothing is steered away from in this step */

    Numbers x, outputs, guided;
    if (latentd_status status = read(call, args->outputs, &outputs)) return status;
    if (latentd_status status = read(call, args->guided, &guided)) return status;
    if (latentd_status status = read(call, args->x, &x)) return status;
    if (outputs.channels != guided.channels || outputs.h != guided.h || outputs.w != guided.w || x.channels != guided.channels
        || x.h != guided.h || x.w != guided.w || outputs.n < eval->rows.count || guided.n < args->images.count
        || x.n < args->images.count)
        return host->fail(call, LATENTD_UNSUPPORTED, LATENTD_TEXT("rows and pictures are not of one size"));
    latentd_handle result = 0;
    float *out = nullptr;
    if (latentd_status status = make(call, guided, &result, &out)) return status;

    const int64_t count = guided.channels * guided.h * guided.w;
    std::vector<double> pos, cfg(count);
    for (int64_t i = 0; i < guided.n; i++) {
        const float *of = guided.at(i), *noisy = x.at(i);
        float *to = out + i * count;
        for (int64_t k = 0; k < count; k++) to[k] = of[k];
        if (i >= args->images.count) continue;
        bool found = false;
        const latentd_picture *picture = LATENTD_AT(latentd_picture, args->images, i);
        if (latentd_status status = positive(call, eval, outputs, picture->image, &pos, &found)) return status;
        if (!found) continue;
        auto into = [&](double sample, int64_t k) {
            return self.in_v ? (noisy[k] / (sigma * sigma + 1) - sample) * scale / sigma : sample;
        };
        for (int64_t k = 0; k < count; k++) {
            pos[k] = into(pos[k], k);
            cfg[k] = into(of[k], k);
        }
        const double wanted = deviation(pos), had = deviation(cfg);
        if (!(had > 0)) continue;
        const double factor = self.phi * wanted / had + (1 - self.phi);
        for (int64_t k = 0; k < count; k++) {
            const double value = cfg[k] * factor;
            to[k] = static_cast<float>(self.in_v ? noisy[k] / (sigma * sigma + 1) - value * sigma / scale : value);
        }
    }
    if (latentd_status status = tensors->unmap(call, result)) return status;
    return host->replace(call, 0, result);
}

latentd_status run(void *instance, latentd_call *call, const latentd_denoise *args) noexcept {
    try {
        return combine(*static_cast<const CfgRescale *>(instance), call, args);
    } catch (...) { /* only memory is asked for */
        return LATENTD_MEMORY;
    }
}

latentd_status create(latentd_call *, const latentd_job *job, void **instance) noexcept {
    latentd_mp params = latentd_mp_root(job->params);
    CfgRescale *self = new (std::nothrow) CfgRescale;
    if (!self) return LATENTD_MEMORY;
    self->phi = latentd_mp_number(params, "phi", 0.7);
    self->in_v = !latentd_is(latentd_mp_text(params, "space", LATENTD_TEXT("v")), "sample");
    *instance = self;
    return LATENTD_OK;
}

void destroy(void *instance) noexcept {
    delete static_cast<CfgRescale *>(instance);
}

latentd_status init(const latentd_host *given) noexcept {
    host = given;
    tensors = static_cast<const latentd_tensors *>(host->service(LATENTD_TEXT(LATENTD_TENSORS)));
    return tensors ? LATENTD_OK : LATENTD_UNSUPPORTED;
}

const void *extension(latentd_text id) noexcept {
    static const latentd_denoise_stage stage = { sizeof stage, 0, run };
    return latentd_is(id, LATENTD_DENOISE_COMBINE) ? &stage : nullptr;
}

} // namespace

LATENTD_ENTRY = { sizeof latentd_entry, LATENTD_ABI_MAJOR, LATENTD_ABI_MINOR, 0, init, extension, create, destroy };
