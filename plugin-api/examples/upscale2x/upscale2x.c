/* upscale2x: an engine. It makes pictures twice as large, and takes new pixels from along edges instead of across them.
 *
 *     cc -shared -fPIC -O2 -I ../../include upscale2x.c -o upscale2x.so
 *     mkdir -p ~/.local/share/latentd/plugins && cp upscale2x.so ~/.local/share/latentd/plugins/
 *
 * Then "enable_hr": true, "hr_upscaler": "DCCI 2x" in a request: an engine is named as if it were latentd's own, and the plugin
 * not at all. latentd cuts the picture into tiles as `describe` says, and puts them together.
 *
 * Zhou, Shen, Dong: "Image zooming using directional cubic convolution interpolation", IET Image Processing 6(6), 2012. A pixel
 * of the picture stands at even columns and rows of the result. Each colour by itself, on a scale of 0…255:
 *
 *   1. At odd columns and rows, among 4 × 4 pixels p(column, row) of the picture around it, the sums of differences along both
 *      diagonals, each over 3 × 3 pairs,
 *          up = Σ |p(i + 1, j) − p(i, j + 1)|          down = Σ |p(i, j) − p(i + 1, j + 1)|
 *      and the cubic convolution of four pixels along both, (−a + 9b + 9c − d) / 16.
 *   2. At the other places, whose neighbours above, below, left and right are there by now, the sums of differences between those
 *      two apart, `across` in rows and `along` in columns, over the nine pairs whose middles lie within one step of the place, or
 *      two in one direction; and the convolution of four both ways.
 *
 * Where one sum exceeds 1.15 times the other, both with 1 added, an edge lies the other way, and the value along it is taken.
 * Elsewhere both are mixed, each weighted with 1 / (1 + sum⁵). Beyond the ends the picture is seen as in a mirror. */

#include "latentd.h"

#include <math.h>
#include <stdlib.h>

LATENTD_MANIFEST_FILE("upscale2x.toml");

static const latentd_host *host;
static const latentd_tensors *tensors;
static const latentd_jobs *jobs; /* null where the host has none: the manifest says "uses", not "requires" */

/* A plane of the result while it is filled. */
typedef struct plane {
    float *values;
    int64_t w, h;
} plane;

/* Beyond an end of n places: as in a mirror that stands on the last place of the picture's own, n is even. */
static int64_t mirrored(int64_t at, int64_t n) {
    int64_t last = n - 2;
    if (last == 0) return at & 1; /* one pixel: all places stand for it */
    while (at < 0 || at > last + 1) at = at < 0 ? -at : 2 * last - at;
    return at;
}

static double at(const plane *p, int64_t x, int64_t y) {
    return p->values[mirrored(y, p->h) * p->w + mirrored(x, p->w)];
}

static double cubic(double a, double b, double c, double d) {
    return (9.0 * (b + c) - a - d) / 16.0;
}

/* Of two sums of differences and the values along the two ways that they are of. */
static float chosen(double sum1, double sum2, double value1, double value2) {
    double e1 = 255.0 * sum1, e2 = 255.0 * sum2, w1, w2, value;
    if (1.0 + e1 > 1.15 * (1.0 + e2)) value = value2;
    else if (1.0 + e2 > 1.15 * (1.0 + e1)) value = value1;
    else {
        w1 = 1.0 / (1.0 + e1 * e1 * e1 * e1 * e1);
        w2 = 1.0 / (1.0 + e2 * e2 * e2 * e2 * e2);
        value = (w1 * value1 + w2 * value2) / (w1 + w2);
    }
    return (float)(value < 0.0 ? 0.0 : value > 1.0 ? 1.0 : value);
}

static float diagonal(const plane *p, int64_t x, int64_t y) {
    double up = 0.0, down = 0.0;
    for (int64_t j = -3; j <= 1; j += 2) {
        for (int64_t i = -3; i <= 1; i += 2) {
            up += fabs(at(p, x + i + 2, y + j) - at(p, x + i, y + j + 2));
            down += fabs(at(p, x + i, y + j) - at(p, x + i + 2, y + j + 2));
        }
    }
    return chosen(up, down, cubic(at(p, x + 3, y - 3), at(p, x + 1, y - 1), at(p, x - 1, y + 1), at(p, x - 3, y + 3)),
                  cubic(at(p, x - 3, y - 3), at(p, x - 1, y - 1), at(p, x + 1, y + 1), at(p, x + 3, y + 3)));
}

static float straight(const plane *p, int64_t x, int64_t y) {
    static const int near[9][2] = { { 0, -2 }, { -1, -1 }, { 1, -1 }, { -2, 0 }, { 0, 0 }, { 2, 0 }, { -1, 1 }, { 1, 1 }, { 0, 2 } };
    double across = 0.0, along = 0.0;
    for (int i = 0; i < 9; i++) {
        int64_t u = x + near[i][0], v = y + near[i][1];
        across += fabs(at(p, u - 1, v) - at(p, u + 1, v));
        along += fabs(at(p, u, v - 1) - at(p, u, v + 1));
    }
    return chosen(across, along, cubic(at(p, x - 3, y), at(p, x - 1, y), at(p, x + 1, y), at(p, x + 3, y)),
                  cubic(at(p, x, y - 3), at(p, x, y - 1), at(p, x, y + 1), at(p, x, y + 3)));
}

/* old: w × h; new: twice of both. */
static latentd_status twice(latentd_call *call, const float *old, int64_t w, int64_t h, float *new) {
    plane p = { new, 2 * w, 2 * h };
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++) new[2 * y * p.w + 2 * x] = old[y * w + x];
    for (int64_t y = 1; y < p.h; y += 2)
        for (int64_t x = 1; x < p.w; x += 2) new[y * p.w + x] = diagonal(&p, x, y);
    if (jobs && jobs->cancelled(call)) return LATENTD_CANCELLED; /* what is mapped and allocated ends with the call */
    for (int64_t y = 0; y < p.h; y++)
        for (int64_t x = 1 - (y & 1); x < p.w; x += 2) new[y * p.w + x] = straight(&p, x, y);
    return LATENTD_OK;
}

static latentd_status describe(latentd_call *call, const latentd_engine_run *run, const latentd_plan *plan,
                               latentd_engine_facts *facts) {
    (void)plan;
    if (run->kind != LATENTD_UPSCALER || !latentd_is(run->entry, "DCCI 2x"))
        return host->fail(call, LATENTD_UNSUPPORTED, LATENTD_TEXT("of all engines it has the upscaler 'DCCI 2x' only"));
    facts->scale = 2;
    facts->tile = 96;
    facts->overlap = 8;
    facts->most_at_once = 4;
    facts->as_float = 1;
    return LATENTD_OK;
}

/* Tiles (n, 3, h, w) of 0…1; each plane is n's and a colour's. */
static latentd_status run(void *instance, latentd_call *call, const latentd_engine_run *run,
                          latentd_status (*detected)(latentd_call *, const latentd_detection *)) {
    latentd_tensor_info info = { .size = sizeof info }, wanted = { .size = sizeof wanted, .kind = LATENTD_TENSOR, .ndim = 4 };
    latentd_map from = { .size = sizeof from, .mode = LATENTD_READ, .code = LATENTD_FLOAT, .bits = 32, .lanes = 1,
                         .layout = LATENTD_DENSE };
    latentd_map to = { .size = sizeof to, .mode = LATENTD_REPLACE, .layout = LATENTD_STORED };
    latentd_handle made;
    latentd_status status = tensors->info(call, run->image, &info);
    (void)instance;
    (void)detected;
    if (status) return status;
    int64_t planes = info.shape[0] * info.shape[1], h = info.shape[2], w = info.shape[3];
    for (int i = 0; i < 4; i++) wanted.shape[i] = info.shape[i] * (i < 2 ? 1 : 2);
    if ((status = tensors->alloc(call, &wanted, &made))) return status;
    if ((status = tensors->map(call, run->image, &from))) return status;
    if ((status = tensors->map(call, made, &to))) return status;
    for (int64_t i = 0; i < planes; i++) {
        status = twice(call, (const float *)from.data + i * h * w, w, h, (float *)to.data + i * 4 * h * w);
        if (status) return status;
    }
    if ((status = tensors->unmap(call, made))) return status;
    return host->replace(call, 0, made);
}

static latentd_status init(const latentd_host *given) {
    host = given;
    tensors = host->service(LATENTD_TEXT(LATENTD_TENSORS));
    jobs = host->service(LATENTD_TEXT(LATENTD_JOBS));
    return tensors ? LATENTD_OK : LATENTD_UNSUPPORTED;
}

static const void *extension(latentd_text id) {
    static const latentd_engine_stage engines = { .size = sizeof engines, .describe = describe, .run = run };
    return latentd_is(id, LATENTD_ENGINES) ? &engines : NULL;
}

LATENTD_ENTRY = { .size = sizeof latentd_entry, .abi_major = LATENTD_ABI_MAJOR, .abi_minor = LATENTD_ABI_MINOR,
                  .init = init, .extension = extension };
