/* @NAME@: a plugin that filters finished pictures. It mixes each colour with the grey of its brightness.
 *
 *     make            builds @NAME@.so
 *     make check      lets latentd look for faults
 *     make install    puts it where latentd finds it
 */

#include <stdint.h>
#include <stdlib.h>

#include "latentd.h"
#include "latentd_msgpack.h"

LATENTD_MANIFEST_FILE("@NAME@.toml");

static const latentd_host *host;
static const latentd_tensors *tensors;
static const latentd_jobs *jobs;

/* One for each time a job draws. */
typedef struct filter {
    double amount;
} filter;

static latentd_status create(latentd_call *call, const latentd_job *job, void **instance) {
    filter *self = malloc(sizeof *self);
    (void)call;
    if (!self) return LATENTD_MEMORY;
    /* By the manifest's schema it is a number of 0 to 1; the default there is put in by latentd. */
    self->amount = latentd_mp_number(latentd_mp_root(job->params), "amount", 1.0);
    *instance = self;
    return LATENTD_OK;
}

static void destroy(void *instance) {
    free(instance);
}

static latentd_status filtered(const filter *self, latentd_call *call, latentd_handle picture, latentd_handle *made) {
    latentd_tensor_info info = { .size = sizeof info }, wanted = { .size = sizeof wanted, .kind = LATENTD_IMAGE, .ndim = 4 };
    latentd_map from = { .size = sizeof from, .mode = LATENTD_READ }, to = { .size = sizeof to, .mode = LATENTD_REPLACE };
    latentd_status status = tensors->info(call, picture, &info);
    if (status) return status;
    for (int i = 0; i < 4; i++) wanted.shape[i] = info.shape[i]; /* (1, channels, height, width) */
    if ((status = tensors->alloc(call, &wanted, made))) return status;
    if ((status = tensors->map(call, picture, &from))) return status;
    if ((status = tensors->map(call, *made, &to))) return status;
    for (int64_t y = 0; y < info.shape[2]; y++) {
        if (jobs->cancelled(call)) return LATENTD_CANCELLED;
        for (int64_t x = 0; x < info.shape[3]; x++) {
            const uint8_t *old = (const uint8_t *)from.data + y * from.strides[2] + x * from.strides[3];
            uint8_t *new = (uint8_t *)to.data + y * to.strides[2] + x * to.strides[3];
            int64_t channels = info.shape[1], colours = channels < 3 ? channels : 3;
            double grey = old[0];
            if (colours == 3)
                grey = 0.299 * old[0] + 0.587 * old[from.strides[1]] + 0.114 * old[2 * from.strides[1]];
            for (int64_t c = 0; c < channels; c++) {
                double value = old[c * from.strides[1]];
                if (c < colours) value += (grey - value) * self->amount;
                new[c * to.strides[1]] = (uint8_t)(value + 0.5);
            }
        }
    }
    return tensors->unmap(call, *made);
}

static latentd_status run(void *instance, latentd_call *call, const latentd_pictures *args) {
    for (uint32_t i = 0; i < args->pictures.count; i++) {
        latentd_handle made;
        latentd_status status = filtered(instance, call, LATENTD_AT(latentd_picture, args->pictures, i)->pixels, &made);
        if (!status) status = host->replace(call, i, made);
        if (status) return status;
    }
    return LATENTD_OK;
}

static latentd_status init(const latentd_host *given) {
    host = given;
    tensors = host->service(LATENTD_TEXT(LATENTD_TENSORS));
    jobs = host->service(LATENTD_TEXT(LATENTD_JOBS));
    return tensors && jobs ? LATENTD_OK : LATENTD_UNSUPPORTED;
}

static const void *extension(latentd_text id) {
    static const latentd_pictures_stage pictures = { .size = sizeof pictures, .run = run };
    return latentd_is(id, LATENTD_IMAGE_POST) ? &pictures : NULL;
}

LATENTD_ENTRY = { .size = sizeof latentd_entry, .abi_major = LATENTD_ABI_MAJOR, .abi_minor = LATENTD_ABI_MINOR,
                  .init = init, .extension = extension, .create = create, .destroy = destroy };
