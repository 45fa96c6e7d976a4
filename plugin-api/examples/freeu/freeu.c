/* freeu: a plugin within the UNet. On the way up it amplifies what comes from below and weakens what skips the depth.
 *
 *     cc -shared -fPIC -O2 -I ../../include freeu.c -o freeu.so -lm
 *     mkdir -p ~/.local/share/latentd/plugins && cp freeu.so ~/.local/share/latentd/plugins/
 *
 * Then "plugins": {"freeu": {"b1": 1.5, "b2": 1.6, "s1": 0.9, "s2": 0.2}} in a request: the paper's numbers for SD 1.5.
 *
 * Si, Huang, Jiang, Liu: "FreeU: Free Lunch in Diffusion U-Net", CVPR 2024 (arXiv 2309.11497); the form without the map of
 * means. Before an output block of level k
 *
 *     h[first half of the channels] *= b_k          skip = IFFT(mask · FFT(skip)), real part
 *
 * where the mask is s_k at frequencies 0 and −1 of both axes and 1 elsewhere: what "the four in the middle" of a shifted
 * spectrum are. So with p = 2πy/h, q = 2πx/w and the sum over both axes' a and b of 0 and 1
 *
 *     skip += (s_k − 1) / (h · w) · Σ C_ab cos(ap + bq) + S_ab sin(ap + bq)
 *     C_ab = Σ skip cos(ap + bq)          S_ab = Σ skip sin(ap + bq)
 *
 * over the plane, which needs no FFT. An axis of one place has frequency 0 alone.
 *
 * The paper's code and ComfyUI tell levels by widths: of SD 1.5's blocks those with 1280 channels coming in are the first,
 * those with 640 the second. Here that is the width that the way up begins with, and the next smaller one. diffusers tells them
 * by resolutions: the coarsest is the first, the next one the second. `levels` says which. */

#include <math.h>
#include <stdlib.h>

#include "latentd.h"
#include "latentd_msgpack.h"

LATENTD_MANIFEST_FILE("freeu.toml");

static const latentd_host *host;
static const latentd_tensors *tensors;

/* An instance: what this job's request says, and where a call of the UNet stands. */
typedef struct freeu {
    double b[2], s[2], start, end;
    int by_resolution;
    uint32_t widest, next; /* channels; next is 0 as long as none came */
    int resolution;        /* how many were passed */
    int64_t h, w;          /* of the last skip */
} freeu;

static void settings(const latentd_job *job, freeu *self) {
    latentd_mp params = latentd_mp_root(job->params);
    self->b[0] = latentd_mp_number(params, "b1", 1.5);
    self->b[1] = latentd_mp_number(params, "b2", 1.6);
    self->s[0] = latentd_mp_number(params, "s1", 0.9);
    self->s[1] = latentd_mp_number(params, "s2", 0.2);
    self->start = latentd_mp_number(params, "start", 0);
    self->end = latentd_mp_number(params, "end", 1);
    self->by_resolution = latentd_is(latentd_mp_text(params, "levels", LATENTD_TEXT("channels")), "resolutions");
}

static latentd_status plan(latentd_call *call, const latentd_job *job, const latentd_plan *answer) {
    static const latentd_site sites[] = { { LATENTD_OUTPUT, LATENTD_ANY } };
    latentd_want want = { .size = sizeof want, .stage = { LATENTD_UNET_BLOCK, sizeof LATENTD_UNET_BLOCK - 1 } };
    freeu self;
    settings(job, &self);
    if (self.b[0] == 1 && self.b[1] == 1 && self.s[0] == 1 && self.s[1] == 1) return LATENTD_SKIP;
    if (self.end <= self.start) return LATENTD_SKIP;
    want.from = self.start;
    want.until = self.end;
    want.sites.items = sites;
    want.sites.count = 1;
    want.sites.stride = sizeof *sites;
    return answer->stage(call, &want);
}

static latentd_status create(latentd_call *call, const latentd_job *job, void **instance) {
    freeu *self = calloc(1, sizeof *self);
    (void)call;
    if (!self) return LATENTD_MEMORY;
    settings(job, self);
    *instance = self;
    return LATENTD_OK;
}

static void destroy(void *instance) {
    free(instance);
}

/* A tensor (n, channels, h, w), and its numbers. */
typedef struct numbers {
    int64_t n, channels, h, w;
    const float *data;
} numbers;

static latentd_status measure(latentd_call *call, latentd_handle handle, numbers *found) {
    latentd_tensor_info info = { .size = sizeof info };
    latentd_status status = tensors->info(call, handle, &info);
    if (status) return status;
    if (info.ndim != 4) return host->fail(call, LATENTD_UNSUPPORTED, LATENTD_TEXT("what goes by has four dimensions"));
    found->n = info.shape[0];
    found->channels = info.shape[1];
    found->h = info.shape[2];
    found->w = info.shape[3];
    return LATENTD_OK;
}

/* Maps the numbers of a tensor that was measured, and makes one of the same shape that is to be filled. */
static latentd_status open(latentd_call *call, latentd_handle handle, numbers *from, latentd_handle *made, float **to) {
    latentd_tensor_info info = { .size = sizeof info, .kind = LATENTD_TENSOR, .ndim = 4 };
    latentd_map read = { .size = sizeof read, .mode = LATENTD_READ, .code = LATENTD_FLOAT, .bits = 32, .lanes = 1,
                         .layout = LATENTD_DENSE };
    latentd_map write = { .size = sizeof write, .mode = LATENTD_REPLACE, .layout = LATENTD_DENSE };
    latentd_status status = tensors->map(call, handle, &read);
    if (status) return status;
    info.shape[0] = from->n;
    info.shape[1] = from->channels;
    info.shape[2] = from->h;
    info.shape[3] = from->w;
    if ((status = tensors->alloc(call, &info, made))) return status;
    if ((status = tensors->map(call, *made, &write))) return status;
    from->data = read.data;
    *to = write.data;
    return LATENTD_OK;
}

static latentd_status put(latentd_call *call, uint32_t slot, latentd_handle made) {
    latentd_status status = tensors->unmap(call, made);
    return status ? status : host->replace(call, slot, made);
}

static latentd_status amplify(latentd_call *call, latentd_handle handle, numbers h, double by) {
    int64_t plane = h.h * h.w, row = h.channels * plane, half = h.channels / 2 * plane;
    latentd_handle made;
    float *to, factor = (float)by;
    latentd_status status = open(call, handle, &h, &made, &to);
    if (status) return status;
    for (int64_t i = 0; i < h.n * row; i++) to[i] = i % row < half ? h.data[i] * factor : h.data[i];
    return put(call, 0, made);
}

/* Cosine and sine of an axis' places at its lowest frequency. */
typedef struct wave {
    double cosine, sine;
} wave;

static void fill(wave *waves, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        double angle = 6.283185307179586 * (double)i / (double)count;
        waves[i].cosine = cos(angle);
        waves[i].sine = sin(angle);
    }
}

/* One plane (h, w) with its lowest frequencies scaled: adds `by` times their part. */
static void scale(const float *from, float *to, int64_t h, int64_t w, const wave *p, const wave *q, double by) {
    int down = h > 1, along = w > 1;
    double c00 = 0, c01 = 0, s01 = 0, c10 = 0, s10 = 0, c11 = 0, s11 = 0;
    for (int64_t y = 0; y < h; y++) {
        double sum = 0, cosine = 0, sine = 0;
        for (int64_t x = 0; x < w; x++) {
            double value = from[y * w + x];
            sum += value;
            cosine += value * q[x].cosine;
            sine += value * q[x].sine;
        }
        c00 += sum;
        c01 += cosine;
        s01 += sine;
        c10 += sum * p[y].cosine;
        s10 += sum * p[y].sine;
        c11 += cosine * p[y].cosine - sine * p[y].sine;
        s11 += sine * p[y].cosine + cosine * p[y].sine;
    }
    if (!along) c01 = s01 = 0;
    if (!down) c10 = s10 = 0;
    if (!along || !down) c11 = s11 = 0;
    for (int64_t y = 0; y < h; y++) {
        double level = c00 + c10 * p[y].cosine + s10 * p[y].sine;
        double of_cosine = c01 + c11 * p[y].cosine + s11 * p[y].sine;
        double of_sine = s01 + s11 * p[y].cosine - c11 * p[y].sine;
        for (int64_t x = 0; x < w; x++) {
            double low = level + of_cosine * q[x].cosine + of_sine * q[x].sine;
            to[y * w + x] = (float)(from[y * w + x] + by * low);
        }
    }
}

static latentd_status weaken(latentd_call *call, latentd_handle handle, numbers skip, double by) {
    int64_t plane = skip.h * skip.w;
    latentd_handle made;
    float *to;
    latentd_status status = open(call, handle, &skip, &made, &to);
    wave *waves;
    if (status) return status;
    if (!(waves = malloc((size_t)(skip.h + skip.w) * sizeof *waves))) return LATENTD_MEMORY;
    fill(waves, skip.h);
    fill(waves + skip.h, skip.w);
    for (int64_t i = 0; i < skip.n * skip.channels; i++)
        scale(skip.data + i * plane, to + i * plane, skip.h, skip.w, waves, waves + skip.h, (by - 1) / (double)plane);
    free(waves);
    return put(call, 1, made);
}

/* Which level a block is of, 0 or 1, or another number if of neither. Blocks come in their order, the first one first. */
static int level_of(freeu *self, const latentd_block *at, const numbers *skip) {
    if (at->index == 0) {
        self->widest = at->channels;
        self->next = 0;
        self->resolution = 0;
    } else if (skip->h != self->h || skip->w != self->w) self->resolution++;
    self->h = skip->h;
    self->w = skip->w;
    if (!self->next && at->channels < self->widest) self->next = at->channels;
    if (self->by_resolution) return self->resolution;
    return at->channels == self->widest ? 0 : at->channels == self->next ? 1 : 2;
}

static latentd_status block(void *instance, latentd_call *call, const latentd_block *at) {
    freeu *self = instance;
    numbers h, skip;
    latentd_status status;
    int level;
    if (at->part != LATENTD_OUTPUT || !at->skip) return LATENTD_SKIP;
    if ((status = measure(call, at->h, &h)) || (status = measure(call, at->skip, &skip))) return status;
    level = level_of(self, at, &skip);
    if (level > 1) return LATENTD_SKIP;
    if (self->b[level] != 1 && (status = amplify(call, at->h, h, self->b[level]))) return status;
    if (self->s[level] != 1) return weaken(call, at->skip, skip, self->s[level]);
    return LATENTD_OK;
}

static latentd_status init(const latentd_host *given) {
    host = given;
    tensors = host->service(LATENTD_TEXT(LATENTD_TENSORS));
    return tensors ? LATENTD_OK : LATENTD_UNSUPPORTED;
}

static const void *extension(latentd_text id) {
    static const latentd_plan_extension planning = { .size = sizeof planning, .plan = plan };
    static const latentd_unet_block_stage blocks = { .size = sizeof blocks, .run = block };
    if (latentd_is(id, LATENTD_JOB_PLAN)) return &planning;
    if (latentd_is(id, LATENTD_UNET_BLOCK)) return &blocks;
    return NULL;
}

LATENTD_ENTRY = { .size = sizeof latentd_entry, .abi_major = LATENTD_ABI_MAJOR, .abi_minor = LATENTD_ABI_MINOR,
                  .init = init, .extension = extension, .create = create, .destroy = destroy };
