/* vignette: a plugin that filters finished pictures. It darkens them towards their corners.
 *
 *     cc -shared -fPIC -O2 -I ../../include vignette.c -o vignette.so -lm
 *     mkdir -p ~/.local/share/latentd/plugins && cp vignette.so ~/.local/share/latentd/plugins/
 *
 * Then "plugins": {"vignette": {"strength": 0.5, "radius": 0.5}} in a request. Both may be left out.
 *
 * With u and v from -1 to 1 across the picture, d = √((u² + v²) / 2) is 0 in the centre and 1 in the very corner; t is how far
 * d is on the way from `radius` to 1; and each colour is multiplied by 1 − strength · t² · (3 − 2t). Alpha stays.
 */

#include <math.h>
#include <stdlib.h>

#include "latentd.h"
#include "latentd_msgpack.h"

LATENTD_MANIFEST_FILE("vignette.toml");

static const latentd_host *host;
static const latentd_tensors *tensors;
static const latentd_jobs *jobs; /* null where the host has none: the manifest says "uses", not "requires" */

/* An instance: what this job's request says. */
typedef struct vignette {
    double strength, radius;
} vignette;

static latentd_status create(latentd_call *call, const latentd_job *job, void **instance) {
    latentd_mp params = latentd_mp_root(job->params);
    vignette *self = malloc(sizeof *self);
    (void)call;
    if (!self) return LATENTD_MEMORY;
    self->strength = latentd_mp_number(params, "strength", 0.5);
    self->radius = latentd_mp_number(params, "radius", 0.5);
    *instance = self;
    return LATENTD_OK;
}

static void destroy(void *instance) {
    free(instance);
}

/* What is left of the light at x of w, y of h. */
static double light(const vignette *self, int64_t x, int64_t y, int64_t w, int64_t h) {
    double u = (2.0 * (double)x + 1.0) / (double)w - 1.0, v = (2.0 * (double)y + 1.0) / (double)h - 1.0;
    double d = sqrt((u * u + v * v) / 2.0), t;
    if (d <= self->radius) return 1.0;
    t = (d - self->radius) / (1.0 - self->radius); /* d is below 1, so radius is too */
    return 1.0 - self->strength * t * t * (3.0 - 2.0 * t);
}

static latentd_status darken(const vignette *self, latentd_call *call, latentd_handle picture, latentd_handle *made) {
    latentd_tensor_info info = { .size = sizeof info }, wanted = { .size = sizeof wanted, .kind = LATENTD_IMAGE, .ndim = 4 };
    latentd_map from = { .size = sizeof from, .mode = LATENTD_READ, .code = LATENTD_UINT, .bits = 8, .lanes = 1,
                         .layout = LATENTD_STORED };
    latentd_map to = { .size = sizeof to, .mode = LATENTD_REPLACE, .layout = LATENTD_STORED };
    latentd_status status = tensors->info(call, picture, &info);
    if (status) return status;
    for (int i = 0; i < 4; i++) wanted.shape[i] = info.shape[i];
    if ((status = tensors->alloc(call, &wanted, made))) return status;
    if ((status = tensors->map(call, picture, &from))) return status;
    if ((status = tensors->map(call, *made, &to))) return status;

    int64_t channels = info.shape[1], h = info.shape[2], w = info.shape[3];
    int64_t colours = channels == 4 ? 3 : channels;
    for (int64_t y = 0; y < h; y++) {
        if (jobs && jobs->cancelled(call)) return LATENTD_CANCELLED; /* what is mapped and allocated ends with the call */
        for (int64_t x = 0; x < w; x++) {
            const uint8_t *old = (const uint8_t *)from.data + y * from.strides[2] + x * from.strides[3];
            uint8_t *new = (uint8_t *)to.data + y * to.strides[2] + x * to.strides[3];
            double f = light(self, x, y, w, h);
            for (int64_t c = 0; c < channels; c++) {
                uint8_t value = old[c * from.strides[1]];
                new[c * to.strides[1]] = c < colours ? (uint8_t)(int)(value * f + 0.5) : value;
            }
        }
    }
    if ((status = tensors->unmap(call, picture))) return status;
    return tensors->unmap(call, *made);
}

static latentd_status run(void *instance, latentd_call *call, const latentd_pictures *args) {
    const vignette *self = instance;
    if (self->strength == 0.0) return LATENTD_SKIP;
    for (uint32_t i = 0; i < args->pictures.count; i++) {
        const latentd_picture *picture = LATENTD_AT(latentd_picture, args->pictures, i);
        latentd_handle made;
        latentd_status status;
        if (!picture->pixels) continue;
        if ((status = darken(self, call, picture->pixels, &made))) return status;
        if ((status = host->replace(call, i, made))) return status;
    }
    return LATENTD_OK;
}

static latentd_status init(const latentd_host *given) {
    host = given;
    tensors = host->service(LATENTD_TEXT(LATENTD_TENSORS));
    jobs = host->service(LATENTD_TEXT(LATENTD_JOBS));
    return tensors ? LATENTD_OK : LATENTD_UNSUPPORTED;
}

static const void *extension(latentd_text id) {
    static const latentd_pictures_stage post = { .size = sizeof post, .run = run };
    return latentd_is(id, LATENTD_IMAGE_POST) ? &post : NULL;
}

LATENTD_ENTRY = { .size = sizeof latentd_entry, .abi_major = LATENTD_ABI_MAJOR, .abi_minor = LATENTD_ABI_MINOR,
                  .init = init, .extension = extension, .create = create, .destroy = destroy };
