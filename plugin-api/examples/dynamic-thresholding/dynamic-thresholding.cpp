/* dynamic-thresholding: a plugin that does guidance anew. A high scale follows the prompt closely but burns; here what it makes
 * is brought into the range that a lower scale, `mimic_scale`, would have.
 *
 *     c++ -std=c++17 -shared -fPIC -O2 -I ../../include dynamic-thresholding.cpp -o dynamic-thresholding.so
 *     mkdir -p ~/.local/share/latentd/plugins && cp dynamic-thresholding.so ~/.local/share/latentd/plugins/
 *
 * Then "plugins": {"dynamic-thresholding": {"mimic_scale": 7}} in a request with a cfg_scale above that.
 *
 * Saharia et al.: "Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding" (Imagen), 2022, section 2.3,
 * clamp pictures at a percentile of |x| and divide by it. For latents, which have no fixed range, the extension
 * sd-dynamic-thresholding (Alex Goodwin, "mcmonkey") mimics another scale. This is written from what that does in its mode
 * "Constant". Per picture, with relative = Σ weight · mask · (cond − uncond):
 *
 *     mim = uncond + mimic_scale · relative           cfg = uncond + cfg_scale · relative
 *     mim', cfg' = mim, cfg without their channel's mean
 *     AD:  r_mim = max |mim'|, r_cfg = quantile(|cfg'|, threshold_percentile), between numbers linearly
 *     STD: r_mim, r_cfg = standard deviations (n − 1) of mim', cfg'
 *     MEAN, AD:  result = clamp(cfg', ±m) / m · r_mim + mean of cfg, where m = max(r_mim, r_cfg)
 *     MEAN, STD: result = cfg' / r_cfg · r_mim + mean of cfg
 *     ZERO:      result = cfg · r_mim / r_cfg
 *     out = interpolate_phi · result + (1 − interpolate_phi) · cfg
 *
 * Ranges r are per channel, or with separate_feature_channels false of all channels; the extension then takes one range for all
 * pictures of a batch, here it is one per picture, so that no picture depends on its company. A range of 0 changes nothing.
 *
 * All of this is done to x − sample, which is σ times the noise that x has, as the extension does it in ComfyUI, or with
 * `space` "sample" to samples, as it does in A1111. (Divided by σ it would be the noise itself; a factor changes nothing here,
 * since each step above multiplies with it.) What plugins before this one made of `guided` is lost.
 */

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "latentd.h"
#include "latentd_msgpack.h"

LATENTD_MANIFEST_FILE("dynamic-thresholding.toml");

namespace {

const latentd_host *host;
const latentd_tensors *tensors;

struct Settings {
    double mimic_scale, percentile, phi;
    bool separate, from_mean, by_deviation, in_noise;
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

/* A picture's rows: the one steered away from, and the weighted sum of differences to it. */
struct Rows {
    const float *uncond = nullptr;
    std::vector<double> relative;
    bool usable = false;
};

latentd_status gather(latentd_call *call, const latentd_eval *eval, const Numbers &outputs, uint32_t image, Rows *rows) {
    bool wanted = false, other = false;
    rows->uncond = nullptr;
    for (uint32_t i = 0; i < eval->rows.count; i++) {
        const latentd_row *row = LATENTD_AT(latentd_row, eval->rows, i);
        if (row->image != image || row->tag.length) continue; /* with a tag it is for another plugin */
        if (row->role == LATENTD_UNCOND) rows->uncond = outputs.at(i);
        else if (row->role == LATENTD_COND) wanted = true;
        else other = true;
    }
    /* Guidance by more than this, as of checkpoints that edit a picture, is another formula. */
    rows->usable = rows->uncond && wanted && !other;
    if (!rows->usable) return LATENTD_OK;
    const int64_t plane = outputs.h * outputs.w, count = outputs.channels * plane;
    rows->relative.assign(count, 0);
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
            const double where = mask.data ? mask.data[k % plane] : 1.0;
            rows->relative[k] += row->weight * where * (static_cast<double>(cond[k]) - rows->uncond[k]);
        }
    }
    return LATENTD_OK;
}

double mean_of(const double *values, int64_t count) {
    double sum = 0;
    for (int64_t k = 0; k < count; k++) sum += values[k];
    return sum / static_cast<double>(count);
}

double largest(const double *values, int64_t count) {
    double most = 0;
    for (int64_t k = 0; k < count; k++) most = std::max(most, std::fabs(values[k]));
    return most;
}

double deviation(const double *values, int64_t count) {
    if (count < 2) return 0;
    const double mean = mean_of(values, count);
    double sum = 0;
    for (int64_t k = 0; k < count; k++) sum += (values[k] - mean) * (values[k] - mean);
    return std::sqrt(sum / static_cast<double>(count - 1));
}

double quantile(const double *values, int64_t count, double share) {
    if (share >= 1) return largest(values, count);
    std::vector<double> sizes(count);
    for (int64_t k = 0; k < count; k++) sizes[k] = std::fabs(values[k]);
    const double place = std::max(share, 0.0) * static_cast<double>(count - 1);
    const int64_t below = static_cast<int64_t>(place);
    std::nth_element(sizes.begin(), sizes.begin() + below, sizes.end());
    const double low = sizes[below];
    if (below + 1 >= count) return low;
    const double high = *std::min_element(sizes.begin() + below + 1, sizes.end());
    return low + (high - low) * (place - static_cast<double>(below));
}

/* The head's formulas, of one picture: (channels, plane) numbers of `mim` and `cfg`; the result takes the place of `cfg`. */
void threshold(const Settings &self, std::vector<double> &mim, std::vector<double> &cfg, int64_t channels, int64_t plane) {
    std::vector<double> means(channels);
    for (int64_t c = 0; c < channels; c++) {
        const double mim_mean = mean_of(&mim[c * plane], plane);
        means[c] = mean_of(&cfg[c * plane], plane);
        for (int64_t k = c * plane; k < (c + 1) * plane; k++) {
            mim[k] -= mim_mean;
            cfg[k] -= means[c];
        }
    }
    const int64_t parts = self.separate ? channels : 1, length = channels * plane / parts;
    for (int64_t part = 0; part < parts; part++) {
        const double *mimicked = &mim[part * length];
        double *now = &cfg[part * length];
        const double to = self.by_deviation ? deviation(mimicked, length) : largest(mimicked, length);
        const double from = self.by_deviation ? deviation(now, length) : quantile(now, length, self.percentile);
        for (int64_t k = 0; k < length; k++) {
            const double mean = means[(part * length + k) / plane], full = now[k] + mean;
            double value = now[k];
            if (!self.from_mean) {
                value = from > 0 ? full * to / from : full;
            } else if (self.by_deviation) {
                value = (from > 0 ? value / from * to : value) + mean;
            } else {
                const double most = std::max(to, from);
                value = (most > 0 ? std::min(std::max(value, -most), most) / most * to : value) + mean;
            }
            now[k] = self.phi * value + (1 - self.phi) * full;
        }
    }
}

latentd_status combine(const Settings &self, latentd_call *call, const latentd_denoise *args) {
    const latentd_eval *eval = args->eval;
    if (self.phi == 0) return LATENTD_SKIP;
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

    const int64_t plane = guided.h * guided.w, count = guided.channels * plane;
    Rows rows;
    std::vector<double> mim(count), cfg(count);
    for (int64_t i = 0; i < guided.n; i++) {
        const float *of = guided.at(i), *noisy = x.at(i);
        float *to = out + i * count;
        for (int64_t k = 0; k < count; k++) to[k] = of[k];
        if (i >= args->images.count) continue;
        const latentd_picture *picture = LATENTD_AT(latentd_picture, args->images, i);
        if (latentd_status status = gather(call, eval, outputs, picture->image, &rows)) return status;
        if (!rows.usable) continue;
        /* In noise a difference of samples is the other way round. */
        const double sign = self.in_noise ? -1 : 1;
        for (int64_t k = 0; k < count; k++) {
            const double uncond = self.in_noise ? static_cast<double>(noisy[k]) - rows.uncond[k] : rows.uncond[k];
            mim[k] = uncond + sign * self.mimic_scale * rows.relative[k];
            cfg[k] = uncond + sign * args->cfg_scale * rows.relative[k];
        }
        threshold(self, mim, cfg, guided.channels, plane);
        for (int64_t k = 0; k < count; k++)
            to[k] = static_cast<float>(self.in_noise ? noisy[k] - cfg[k] : cfg[k]);
    }
    if (latentd_status status = tensors->unmap(call, result)) return status;
    return host->replace(call, 0, result);
}

latentd_status run(void *instance, latentd_call *call, const latentd_denoise *args) noexcept {
    try {
        return combine(*static_cast<const Settings *>(instance), call, args);
    } catch (...) { /* only memory is asked for */
        return LATENTD_MEMORY;
    }
}

latentd_status create(latentd_call *, const latentd_job *job, void **instance) noexcept {
    const latentd_mp params = latentd_mp_root(job->params);
    Settings *self = new (std::nothrow) Settings;
    if (!self) return LATENTD_MEMORY;
    self->mimic_scale = latentd_mp_number(params, "mimic_scale", 7);
    self->percentile = latentd_mp_number(params, "threshold_percentile", 1);
    self->phi = latentd_mp_number(params, "interpolate_phi", 1);
    self->separate = latentd_mp_flag(params, "separate_feature_channels", 1) != 0;
    self->from_mean = !latentd_is(latentd_mp_text(params, "scaling_startpoint", LATENTD_TEXT("MEAN")), "ZERO");
    self->by_deviation = latentd_is(latentd_mp_text(params, "variability_measure", LATENTD_TEXT("AD")), "STD") != 0;
    self->in_noise = !latentd_is(latentd_mp_text(params, "space", LATENTD_TEXT("noise")), "sample");
    *instance = self;
    return LATENTD_OK;
}

void destroy(void *instance) noexcept {
    delete static_cast<Settings *>(instance);
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
