/* latentd.h: what a latentd plugin and its host say to each other. A draft: every id ends in "/draft-1".
 *
 * This file is made from plugin-api/src/abi; do not change it by hand.
 *
 * A plugin is a library with one exported constant, `latentd_entry`, and a manifest in a section of its own. The host
 * reads the manifest without loading anything. Both sides hand out constant tables by id; a table, an argument struct
 * and a list element only ever grow at the end. An incompatible change is a new id, and the old one stays.
 *
 * THREADS. Each function carries one of these tags.
 *   [control]  A thread of the host's that resolves requests. No instance; several at once.
 *   [job]      The one thread that serves an instance now: not always the same one, never two at a time.
 *   [any]      Any thread, also one of the plugin's own, as long as the call it was given has not returned.
 *
 * OWNERSHIP. Who allocates frees, and nothing changes hands:
 *   1. Arguments, and all they point to, are lent to a function until it returns.
 *   2. Whatever a service writes through an out pointer is lent until the function of yours that called the service
 *      returns.
 *   3. So is every handle you are given or get from a service. `ref` keeps a handle beyond that; `release` gives one
 *      hold back. What is still held when the instance ends, the host frees.
 *   4. What you hand to a service is copied, or for handles referenced, before the service returns.
 *
 * ERRORS. A function returns a status; 0 is success, a code you do not know is a failure. `return host->fail(call,
 * status, text)` leaves a text, which the host copies. After a failed service `host->error(call)` is its text; if you
 * return that status without a text of your own, the host uses the service's. Any service may return CANCELLED: clean
 * up and return it. SKIP drops all that the call left: replacements, notices. A C++ exception or any other unwinding must not leave a function.
 *
 * GROWTH. `size` is what the writer of a struct knew: set it to sizeof in what you fill, and test LATENTD_HAS before
 * you read or call what the first version did not have. Elements of lists have no size; their list's stride says it.
 * Zero means "none" or "as usual" in every field, unless the field says otherwise. Reserved fields are zero.
 * A table's function may be null only where it says so.
 * Codes you do not know are legal everywhere: treat a row or a pass of an unknown kind as none of your business.
 *
 * MANIFEST. TOML text, the whole of section ".latentd" ("__DATA,__latentd" on macOS); zero bytes at its end are
 * ignored. Keys: name (the key under a request's `plugins`), version, abi, license, description; requires = [ids],
 * uses = [ids]; parameters, settings = JSON Schema 2020-12 as text; [capabilities] save = [kinds of library files];
 * [stages."ID"] place = "outermost" | "innermost",
 * after = [names], before = [names]. A stage that is not listed is not called; job.plan need not be listed.
 */
#ifndef LATENTD_H
#define LATENTD_H

#include <stddef.h>
#include <stdint.h>


/* A picture's places to each other. */
#define LATENTD_SELF 1

/* A picture's places to what the model is told. */
#define LATENTD_CROSS 2

/* Further keys and values with a softmax of their own: what is found there is added with weight · mask. */
#define LATENTD_ATTENTION_SET 1

/* The model's own keys: their weight and mask. Of several rules both are multiplied. */
#define LATENTD_ATTENTION_OWN 2

/* Every place finds its own value; in LATENTD_SELF, whatever else holds there. */
#define LATENTD_ATTENTION_IDENTITY 3

/*
 Further keys and values in the softmax of the model's own, behind them; weight multiplies their values, and of zero there are
 none.
 */
#define LATENTD_ATTENTION_APPEND 4

/*
 Numbers added to the scores of the model's own keys before the softmax, the same for all heads. Of several rules they add up;
 nothing is added to keys that were appended. Computed on the host: for few keys or small pictures.
 */
#define LATENTD_ATTENTION_BIAS 5

/* In LATENTD_SELF: what keys and values are made of is kept in `bank`, of each picture what it was last. */
#define LATENTD_ATTENTION_CAPTURE 6

/*
 In LATENTD_SELF: what `bank` has of the row's picture (of another one, if nothing of it) is appended, through the attention's own
 projections; weight as of APPEND. Nothing, where nothing was kept yet.
 */
#define LATENTD_ATTENTION_BANK 7

/*
 The attention that each key receives is kept in `bank`, of each picture what it was last: the mean over heads, summed over
 queries, of scores with what BIAS adds to them. Computed on the host, as BIAS is.
 */
#define LATENTD_ATTENTION_RECEIVED 8

/* Major version of the ABI: 0 while it is a draft, when ids decide alone; from 1 on the same major is needed, any minor does. */
#define LATENTD_ABI_MAJOR 0

/* Minor version of the ABI: what was added to it. */
#define LATENTD_ABI_MINOR 1

/* Extension type of MessagePack: a handle, 8 bytes, big-endian. */
#define LATENTD_EXT_HANDLE 1

/* Extension type of MessagePack: a latentd_file, 8 bytes, big-endian. */
#define LATENTD_EXT_FILE 2

/*
 To the output of an input block, before it is stored as a skip: both ways go on with it (T2I-Adapter). Block 0 is the first
 convolution.
 */
#define LATENTD_AT_ENCODER 1

/* To a skip, in the order in which they are stored, once the way down has ended (ControlNet). */
#define LATENTD_AT_SKIP 2

/* To the output of the middle block (ControlNet). */
#define LATENTD_AT_MIDDLE 3

/*
 Image → image `scale` times as large. The host cuts the picture into tiles and upscales alpha apart: an upscaler sees three
 colours, of any size down to a pixel.
 */
#define LATENTD_UPSCALER 1

/*
 Whole picture → whole picture of the same size; `strength` 0…1 says how far to go. Like all that follow it sees three colours;
 alpha stays as it is.
 */
#define LATENTD_RESTORER 2

/* Image → control image of width × height; what a preprocessor takes beside, such as thresholds, is in `params`. */
#define LATENTD_PREPROCESSOR 3

/* Image, threshold → detections with boxes. */
#define LATENTD_DETECTOR 4

/* Image, threshold → detections without boxes; its reply may hold a `caption`. */
#define LATENTD_TAGGER 5

/* A line that says what went wrong. */
#define LATENTD_ERROR 1

/* A line that says what may be wrong. */
#define LATENTD_WARN 2

/* A line that says what was done. */
#define LATENTD_INFO 3

/* A line for whoever writes the plugin. */
#define LATENTD_DEBUG 4

/* Whoever lies inside of the stage that asks. */
#define LATENTD_NEXT 0

/* The model with the stages within it, and no LATENTD_DENOISE_WRAP. */
#define LATENTD_UNWRAPPED 1

/* The model alone: no plugin takes part. */
#define LATENTD_BARE 2

/* A row's prediction is what is wanted. */
#define LATENTD_COND 1

/* A row's prediction is what is steered away from. */
#define LATENTD_UNCOND 2

/* A row's prediction is for something else. */
#define LATENTD_OTHER 3

/* The request's own pass. */
#define LATENTD_BASE 1

/* The second pass of a hires fix. */
#define LATENTD_HIRES 2

/* The network predicts noise. */
#define LATENTD_PREDICTS_NOISE 1

/* The network predicts v. */
#define LATENTD_PREDICTS_VELOCITY 2

/* The network predicts the picture. */
#define LATENTD_PREDICTS_SAMPLE 3

/* The network predicts a flow's velocity. */
#define LATENTD_PREDICTS_FLOW 4

/* An operand with this bit is the result of the operation whose number the other bits are; see LATENTD_RESULT. */
#define LATENTD_RESULT_BIT 9223372036854775808ull

/* v[0]·a + v[1]. */
#define LATENTD_OP_AFFINE 1

/* v[0]·a + v[1]·b. */
#define LATENTD_OP_ADD 2

/* a·b. */
#define LATENTD_OP_MUL 3

/* a/b, by 0 as IEEE 754 says. */
#define LATENTD_OP_DIV 4

/* a + (b − a)·c; without c (0) ·v[0]. */
#define LATENTD_OP_LERP 5

/* To v[0]…v[1], which may be infinite; NaN stays. */
#define LATENTD_OP_CLAMP 6

/* |a|. */
#define LATENTD_OP_ABS 7

/* The square root; NaN below 0. */
#define LATENTD_OP_SQRT 8

/* Of axis n[0] the entries from n[1] until n[2], which is not included. */
#define LATENTD_OP_SLICE 9

/* a, then b along axis n[0]; all other sizes are the same. */
#define LATENTD_OP_CONCAT 10

/* Of axis 0 the entries whose numbers b has, (count): whole numbers from 0, as f32. */
#define LATENTD_OP_TAKE 11

/* To sizes n[0]…; 0 ends them, one may be −1: what is left. */
#define LATENTD_OP_RESHAPE 12

/* Axis i of the result is axis n[i] of a, for as many as a has. */
#define LATENTD_OP_PERMUTE 13

/*
 To DLPack's code n[0] of n[1] bits. LATENTD_FLOAT, 32: an image's bytes over 255; f32 as they are. LATENTD_UINT, 8: an image
 of (1, 1 | 3 | 4, h, w): 0…1 times 255, rounded, halves to even; what is beyond is cut off, NaN is 0. Nothing else takes or
 makes images.
 */
#define LATENTD_OP_CAST 14

/* Over the axes whose bits n[0] has, which stay as 1: n[1] says what, LATENTD_SUM, …; v[0] the quantile, 0…1. */
#define LATENTD_OP_REDUCE 15

/* (…, n, k) times (…, k, m); what is before the last two axes broadcasts. */
#define LATENTD_OP_MATMUL 16

/* Planes, which the last two axes are, to n[0] rows of n[1]; n[2]: LATENTD_NEAREST, …. */
#define LATENTD_OP_RESIZE 17

/*
 Planes with n[0] on the left, n[1] on the right, n[2] above, n[3] below; n[4]: LATENTD_CONSTANT of v[0], LATENTD_EDGE,
 LATENTD_REFLECT (about the outermost pixel; less than the plane has).
 */
#define LATENTD_OP_PAD 18

/*
 Planes to n[0] rows of n[1]: (x, y) is what lies at (v[0]x + v[1]y + v[2], v[3]x + v[4]y + v[5]), bilinear between the
 middles of pixels, which are whole numbers; beyond the plane everything is v[6].
 */
#define LATENTD_OP_WARP 19

/*
 Planes under a Gaussian of sigma v[0] in x and v[1] in y over n[0] and n[1] pixels, odd, 8191 at most; 0: as many as it needs,
 8 sigma + 1. Sigma 0 leaves an axis. Borders are reflected about the outermost pixel.
 */
#define LATENTD_OP_BLUR 20

/* The sum. */
#define LATENTD_SUM 1

/* The mean. */
#define LATENTD_MEAN 2

/* The least; NaN if there is one. */
#define LATENTD_MIN 3

/* The largest; NaN if there is one. */
#define LATENTD_MAX 4

/* The standard deviation of all, not of a sample. */
#define LATENTD_STD 5

/* A quantile, between two neighbours by distance; NaN if there is one. */
#define LATENTD_QUANTILE 6

/* The one that begins where this one does: torch's "nearest". */
#define LATENTD_NEAREST 0

/* torch's "bilinear", corners not aligned, not antialiased. */
#define LATENTD_BILINEAR 1

/* torch's "bicubic", likewise. */
#define LATENTD_BICUBIC 2

/* The mean of what lies within: torch's "area". */
#define LATENTD_AREA 3

/* Pillow's, of floats. */
#define LATENTD_LANCZOS 4

/* A border of one number. */
#define LATENTD_CONSTANT 0

/* A border of the outermost pixel. */
#define LATENTD_EDGE 1

/* A border of what lies as far within. */
#define LATENTD_REFLECT 2

/* After an input block, before its output is stored as a skip: both ways go on with it. Block 0 is the first convolution. */
#define LATENTD_INPUT 1

/* After it was stored: only the way down goes on with it. */
#define LATENTD_INPUT_STORED 2

/* After the middle block, before residuals are added. Its index is 0. */
#define LATENTD_MIDDLE 3

/* Before an output block: h, and the skip that will be joined to it. */
#define LATENTD_OUTPUT 4

/* Every one of them, where that is said. */
#define LATENTD_ANY 4294967295

/* A text of what is wanted. */
#define LATENTD_PROMPT 1

/* A text of what is steered away from. */
#define LATENTD_NEGATIVE 2

/* A tensor: NCHW logical; latents and samples in the model's scale. */
#define LATENTD_TENSOR 1

/* An image: (1, 1 | 3 | 4, h, w) logical; u8, sRGB values, straight alpha; mostly interleaved in memory, which strides say. */
#define LATENTD_IMAGE 2

/* DLPack's code of signed integers. */
#define LATENTD_INT 0

/* DLPack's code of unsigned integers. */
#define LATENTD_UINT 1

/* DLPack's code of floats. */
#define LATENTD_FLOAT 2

/* DLPack's code of bfloat16. */
#define LATENTD_BFLOAT 4

/* To be read: any number of mappings at a time. */
#define LATENTD_READ 1

/* To be read and written: only what the plugin allocated and has not handed over yet. */
#define LATENTD_WRITE 2

/* As LATENTD_WRITE, but what is in it is not looked at: all of it is written. */
#define LATENTD_REPLACE 3

/* As it lies in memory: strides say how. */
#define LATENTD_STORED 0

/* In logical order without gaps: for images planes one after the other. Tensors lie so. */
#define LATENTD_DENSE 1

/* One call of one of the plugin's functions: tells services who asks. */
typedef struct latentd_call latentd_call;

/* What a function answers: one of the codes below. 0 is success, a code that is not known a failure. */
typedef uint32_t latentd_status;

/* UTF-8 without a zero byte at its end. Data may be null if the length is 0. */
typedef struct latentd_text {
    /* The bytes. */
    const char *data;
    /* How many. */
    uint64_t length;
} latentd_text;

/* A tensor or image. 0 is none; bit 63 is never set. */
typedef uint64_t latentd_handle;

/*
 Bytes, mostly MessagePack: maps with text keys. A picture in it is an ext of type LATENTD_EXT_HANDLE, a library file one of
 type LATENTD_EXT_FILE.
 */
typedef struct latentd_bytes {
    /* The bytes. */
    const void *data;
    /* How many. */
    uint64_t length;
} latentd_bytes;

/* The host, given to `init`; constant while the library is loaded. */
typedef struct latentd_host {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* The host's ABI. */
    uint32_t abi_major;
    /* The host's ABI. */
    uint32_t abi_minor;
    /* 0. */
    uint32_t reserved;
    /* The host's own version. */
    struct latentd_text version;
    /* A constant table (latentd_tensors, …), or null if this host has none by that id. [any] */
    const void *(*service)(struct latentd_text id);
    /* Writes a line to the host's log. `call` may be null. Never blocks; a flood is cut. [any] */
    void (*log)(struct latentd_call *call, uint32_t level, struct latentd_text line);
    /* Leaves why this call fails and returns `status`. [control] [job] */
    latentd_status (*fail)(struct latentd_call *call, latentd_status status, struct latentd_text text);
    /* Why the last service of this call failed; empty if it did not. Lent until the next service. [control] [job] */
    struct latentd_text (*error)(struct latentd_call *call);
    /*
     A stage's result: takes the place of the argument with that slot number, named at each stage. Shape, type and
     finiteness are checked when the stage returns; what is never replaced stays. The last one wins. What was allocated is
     unmapped before, and read only from then on; an argument or a kept handle may be given, too. [job]
     */
    latentd_status (*replace)(struct latentd_call *call, uint32_t slot, latentd_handle handle);
    /*
     As `replace`, for results that are text or MessagePack: what a slot means is said where it is asked for. The last one
     wins; 16 MiB in all. [control] [job]
     */
    latentd_status (*reply)(struct latentd_call *call, uint32_t slot, struct latentd_bytes reply);
} latentd_host;

/* What is to be done. */
typedef struct latentd_job {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0, or how deep a job within jobs this is. */
    uint32_t depth;
    /* "txt2img", "img2img", "outpaint"; of a method of the plugin's own "NAME.method". */
    struct latentd_text method;
    /*
     The request as it was resolved: a map of txt2img's fields, seed drawn, sizes and samplers settled, without pictures. Of a
     method of the plugin's own its parameters, pictures by their SHA-256.
     */
    struct latentd_bytes request;
    /*
     The plugin's own part of it: a map, valid by the manifest's schema (of a method of its own by the method's), with the
     schema's defaults put in. Where the schema
     says `x-image` or `x-mask` there is an ext of type LATENTD_EXT_HANDLE, where it says `x-library` one of type
     LATENTD_EXT_FILE. A picture's handle is valid as long as the instance; in job.plan `info` tells its size, and nothing else
     can be asked of it. A file's number is the same in job.plan and in the instances that are made after it.
     */
    struct latentd_bytes params;
    /* create: what job.plan left with `note`; else empty. */
    struct latentd_bytes note;
    /* Pictures in all. */
    uint32_t pictures;
    /* Pictures of one pass. */
    uint32_t batch;
} latentd_job;

/*
 What a plugin exports by the name `latentd_entry`. In C LATENTD_ENTRY = { .size = sizeof latentd_entry, … }; in C++ the
 values in their order, for names are C++20.
 */
typedef struct latentd_plugin_entry {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* LATENTD_ABI_MAJOR. */
    uint32_t abi_major;
    /* LATENTD_ABI_MINOR. */
    uint32_t abi_minor;
    /* 0. */
    uint32_t reserved;
    /*
     First of all, once per process. Spawn nothing, open nothing. A failure keeps the plugin out: log why, with a null call.
     [control]
     */
    latentd_status (*init)(const struct latentd_host *host);
    /*
     A constant table (latentd_pictures_stage, …), or null. Asked for all stages that the manifest names, and for
     LATENTD_JOB_PLAN. [any]
     */
    const void *(*extension)(struct latentd_text id);
    /*
     Makes an instance, which its stages are then given: one each time a job draws. (A job may draw several times: once for
     each loop, or again in f32 where bf16 had no number.) It may be in another process than the one that planned: what
     is needed is in `note`. May be null: instances are null then. [job]
     */
    latentd_status (*create)(struct latentd_call *call, const struct latentd_job *job, void **instance);
    /* Once for each that `create` made, whatever became of the job. May be null. [job] */
    void (*destroy)(void *instance);
} latentd_plugin_entry;

/* A list of elements that lie `stride` bytes apart: an element may be longer than what was known to whoever reads it. */
typedef struct latentd_list {
    /* The first element. */
    const void *items;
    /* How many. */
    uint32_t count;
    /* Bytes from one to the next. */
    uint32_t stride;
} latentd_list;

/* A stage that is wanted. */
typedef struct latentd_want {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* Its id; one that the manifest names. */
    struct latentd_text stage;
    /* Of each pass's steps, 0…1, for stages within the sampler's loop. Both 0: all. A step outside costs nothing. */
    double from;
    /* As `from`; not included. */
    double until;
    /*
     latentd_site, in LATENTD_UNET_BLOCK: where. Empty: everywhere. A place that nobody wants costs nothing; one that is wanted
     costs a copy of what goes by.
     */
    struct latentd_list sites;
} latentd_want;

/* A library file, held open as it was when the request came. 0 is none. */
typedef uint64_t latentd_file;

/* A network that a job will run. */
typedef struct latentd_need {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /*
     As in `open` of latentd_networks: 1 where `describe` says `on_base`. A checkpoint of the job over which it cannot be built
     refuses the plan.
     */
    uint32_t on_base;
    /* The file: one whose network this host knows, or an ONNX graph. */
    latentd_file file;
    /* As in latentd_network_run. */
    struct latentd_text entry;
    /* latentd_input without handles: the sizes of the largest that it will be run with. */
    struct latentd_list inputs;
    /* Runs in the whole job, about. */
    double runs;
} latentd_need;

/* An engine that will be run. */
typedef struct latentd_engine_need {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* LATENTD_UPSCALER, …. */
    uint32_t kind;
    /* Its name. */
    struct latentd_text entry;
    /* How often it will be run, about; 0: once. */
    uint32_t runs;
    /* 0. */
    uint32_t reserved;
    /* MessagePack, a map of what it will be given; may be empty. */
    struct latentd_bytes params;
} latentd_engine_need;

/*
 A sub-job that a plan tells of. It is resolved with the request, and all that it names is held: what is wrong in it refuses
 the request, its memory is looked at, and its steps count in the job's progress.
 */
typedef struct latentd_subplan {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* The plugin's number for it, not 0: latentd_subjob names it. 64 are possible. */
    uint32_t key;
    /* "txt2img" or "img2img". */
    struct latentd_text method;
    /*
     A merge patch over the job's own request as it was resolved, without its pictures, or in a method over what a request has
     that says nothing: maps merge, all else replaces, nil takes
     away; a key that begins with "/" is a JSON pointer, the only way to one element of a list. Fields that the method does not
     have are dropped. How many pictures there are, and what they begin with, is said where it is run.
     */
    struct latentd_bytes patch;
    /* Runs in the whole job, about. */
    uint32_t expected;
    /* Runs in the whole job, at most; 0: as many as are expected. */
    uint32_t most;
    /* Pictures of one run, at most; 0: 1. */
    uint32_t batch;
    /* 0. */
    uint32_t reserved;
    /* latentd_text: plugins of the request that stay out of it. The planner does, unless the patch names it. */
    struct latentd_list without;
} latentd_subplan;

/* Calls that collect an answer. Nothing of it holds before job.plan returns OK. [control] */
typedef struct latentd_plan {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* Takes part in a stage; the last word on a stage counts. Without any the job is not for the plugin. */
    latentd_status (*stage)(struct latentd_call *call, const struct latentd_want *want);
    /* Leaves bytes for `create`, 1 MiB at most. */
    latentd_status (*note)(struct latentd_call *call, struct latentd_bytes note);
    /*
     A network that the job will run: its memory is planned for, beside the job's own. MODEL with a text: the file is no network
     that this host knows, and no ONNX graph. What is not named here may find no room.
     */
    latentd_status (*network)(struct latentd_call *call, const struct latentd_need *need);
    /*
     An engine that the job will run, or that one describes which runs it: looked for, and described, as soon as the plan is
     made. Without it, and without an `x-engine` that names it, it cannot be run.
     */
    latentd_status (*engine)(struct latentd_call *call, const struct latentd_engine_need *need);
    /*
     A job that will be drawn within this one, by LATENTD_SUBJOBS. What is wrong with it refuses the request once job.plan
     returned OK.
     */
    latentd_status (*subjob)(struct latentd_call *call, const struct latentd_subplan *subplan);
    /*
     Bytes that the plugin, or an engine that it describes, will take at once beside networks: what it reserves, and pictures that
     it makes larger. They are planned for, beside the job's own; several add up. A request that cannot have them is refused.
     */
    latentd_status (*memory)(struct latentd_call *call, uint64_t host_bytes, uint64_t device_bytes);
} latentd_plan;

/* The extension LATENTD_JOB_PLAN. Who has none takes part in all stages that the manifest names. */
typedef struct latentd_plan_extension {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     At submit, for jobs whose request names the plugin, and for their sub-jobs; for these again as they are run. SKIP: not for
     me. INVALID with a text refuses the request. [control]
     */
    latentd_status (*plan)(struct latentd_call *call, const struct latentd_job *job, const struct latentd_plan *plan);
} latentd_plan_extension;

/* A pass. */
typedef struct latentd_pass {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* LATENTD_BASE or LATENTD_HIRES. */
    uint32_t kind;
    /* Which of its kind, from 0. */
    uint32_t index;
    /* Jobs around this one. */
    uint32_t depth;
    /* Pixels. */
    uint32_t width;
    /* Pixels. */
    uint32_t height;
    /* latentd_picture, without pixels but in LATENTD_PASS_BEGIN. */
    struct latentd_list pictures;
    /* Its steps. */
    uint32_t steps;
    /* 1 if it begins with pictures or latents, 0 with noise alone. */
    uint32_t has_init;
    /* Pixels of the request's own pass. */
    uint32_t base_w;
    /* As `base_w`. */
    uint32_t base_h;
    /* Pixels of the second pass of a hires fix; 0 without. */
    uint32_t hires_w;
    /* As `hires_w`. */
    uint32_t hires_h;
    /* How far it goes from what it begins with; 1 without. */
    double denoising_strength;
} latentd_pass;

/* What the pictures of a pass are told. */
typedef struct latentd_conds {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* The pass. */
    const struct latentd_pass *pass;
    /* latentd_cond. */
    struct latentd_list conds;
} latentd_conds;

/* LATENTD_CONDITIONING. */
typedef struct latentd_conditioning_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     When a pass begins, and each time another checkpoint goes on with it (refiner). What images of one pass are told alike
     is still told apart. [job]
     */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_conds *args);
} latentd_conditioning_stage;

/* One text that a branch of a picture's guidance is told. A prompt that changes from step to step is several. */
typedef struct latentd_cond {
    /* Which of the job's pictures. */
    uint32_t image;
    /* Which branch of its guidance: latentd_row.branch. */
    uint32_t branch;
    /* LATENTD_COND or LATENTD_UNCOND. */
    uint32_t role;
    /* 0. */
    uint32_t reserved;
    /* The text, emphasis and all, without schedule, networks and the part's own weight. */
    struct latentd_text prompt;
    /* latentd_span: when it counts, ascending. */
    struct latentd_list spans;
    /* latentd_token: what the text encoder took, with the chunks that made it as long as what the prompt says at other steps. */
    struct latentd_list tokens;
    /* (1, tokens, width). Where another prompt is longer it may go on behind the last of `tokens`. */
    latentd_handle context;
    /* (1, width), or 0 where the model has none. */
    latentd_handle pooled;
} latentd_cond;

/* Model calls of a pass, as latentd_eval.call counts them. */
typedef struct latentd_span {
    /* The first. */
    uint32_t from;
    /* The one behind the last; LATENTD_ANY: up to the pass's end. */
    uint32_t until;
} latentd_span;

/* A token of a prompt. */
typedef struct latentd_token {
    /* In the vocabulary of CLIP. */
    uint32_t id;
    /* On the context's token axis: chunks of 77, one behind the other, each with begin, end and padding. */
    uint32_t place;
    /*
     Bytes of the prompt that it is of: the first, and the one behind the last. Equal where it is of none. Where the text was
     mended before it was read (HTML's entities and the like) they may be those of a whole word or more.
     */
    uint32_t begin;
    /* As `begin`. */
    uint32_t end;
    /* What emphasis multiplies its state by. */
    float weight;
    /* Not 0: a vector of an embedding stands here, as the host numbers them in this call; `id` is then nothing. */
    uint32_t embedding;
} latentd_token;

/* The latents of a pass. */
typedef struct latentd_latents {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* Whose they are. */
    const struct latentd_pass *pass;
    /* (pictures, channels, h, w) f32, in the order of pass->pictures. */
    latentd_handle latents;
} latentd_latents;

/* LATENTD_NOISE_INIT, LATENTD_LATENT_FINAL. */
typedef struct latentd_latents_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* [job] */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_latents *args);
} latentd_latents_stage;

/* One evaluation of the model. */
typedef struct latentd_eval {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* Jobs around this one. */
    uint32_t depth;
    /* latentd_row. */
    struct latentd_list rows;
    /* LATENTD_BASE or LATENTD_HIRES. */
    uint32_t pass_kind;
    /* Which pass of its kind, from 0. */
    uint32_t pass;
    /* Of this pass, from 0. */
    uint32_t step;
    /* Of this pass. */
    uint32_t steps;
    /* Evaluations before it in this pass; some samplers make several a step. */
    uint32_t call;
    /* What the network predicts: LATENTD_PREDICTS_…; stages see samples. */
    uint32_t prediction;
    /* The noise level: x = sample + sigma · noise; with LATENTD_PREDICTS_FLOW x = (1 − sigma) · sample + sigma · noise. */
    double sigma;
    /* Fractional. */
    double timestep;
    /* Of a row: its latents, each a token of the finest block. */
    uint32_t grid_w;
    /* As `grid_w`. */
    uint32_t grid_h;
    /* In LATENTD_UNET_BLOCK, where rows may come in groups, one after the other: which this is, from 0. Else 0. */
    uint32_t group;
    /* How many there are. */
    uint32_t groups;
} latentd_eval;

/*
 One "denoise x at sigma". All tensors are f32 in the model's own scale; outputs and guided are samples, that is predictions
 of the noise-free latents, whatever the network predicts.
 */
typedef struct latentd_denoise {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* What it is of. */
    const struct latentd_eval *eval;
    /* latentd_picture without pixels, one per entry of x and guided; empty in LATENTD_DENOISE_WRAP. */
    struct latentd_list images;
    /* (images, channels, h, w); in LATENTD_DENOISE_WRAP (rows, channels, h, w), in the order of eval->rows. */
    latentd_handle x;
    /* (rows, channels, h, w), in the order of eval->rows; in LATENTD_DENOISE_COMBINE, else 0. */
    latentd_handle outputs;
    /* (images, channels, h, w): what guidance made of the outputs; in LATENTD_DENOISE_COMBINE, else 0. */
    latentd_handle guided;
    /* What guided was made with. */
    double cfg_scale;
} latentd_denoise;

/* LATENTD_DENOISE_BEFORE, LATENTD_DENOISE_WRAP, LATENTD_DENOISE_COMBINE. */
typedef struct latentd_denoise_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* [job] */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_denoise *args);
} latentd_denoise_stage;

/* What goes by at a place in the UNet. */
typedef struct latentd_block {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* LATENTD_INPUT, LATENTD_INPUT_STORED, LATENTD_MIDDLE or LATENTD_OUTPUT. */
    uint32_t part;
    /* Which block of that part. */
    uint32_t index;
    /* Of h. */
    uint32_t channels;
    /* Of the skip; 0 without. */
    uint32_t skip_channels;
    /* 0. */
    uint32_t reserved;
    /* What it is of: its rows are those that are here, in the order of the tensors. */
    const struct latentd_eval *eval;
    /* (rows, channels, h, w), f32 of the network's precision. */
    latentd_handle h;
    /* (rows, skip_channels, h, w) in LATENTD_OUTPUT, else 0. h may be larger by a row or a column, which will be left out. */
    latentd_handle skip;
} latentd_block;

/* LATENTD_UNET_BLOCK. */
typedef struct latentd_unet_block_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* [job] */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_block *args);
} latentd_unet_block_stage;

/* A place in the UNet. Blocks count as `input_blocks` and `output_blocks` of LDM's checkpoints do, from 0. */
typedef struct latentd_site {
    /* LATENTD_INPUT, LATENTD_INPUT_STORED, LATENTD_MIDDLE or LATENTD_OUTPUT. */
    uint32_t part;
    /* Which block of that part, or LATENTD_ANY. One that a model does not have is nowhere. */
    uint32_t index;
} latentd_site;

/* Pictures, all of one pass at once; in LATENTD_BATCH_POST all that are drawn together, of every `n_iter`. */
typedef struct latentd_pictures {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* Whose they are; null in LATENTD_BATCH_POST and LATENTD_INFOTEXT_WRITE. */
    const struct latentd_pass *pass;
    /*
     latentd_picture. Their number, order and seeds stay: of a hires fix those of its last pass; each loop, and each part of
     what is continued, comes by itself, and a part keeps its size.
     */
    struct latentd_list pictures;
} latentd_pictures;

/* LATENTD_IMAGE_POST, LATENTD_BATCH_POST. */
typedef struct latentd_pictures_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* [job] */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_pictures *args);
} latentd_pictures_stage;

/* LATENTD_JOBS: what concerns the job as a whole. */
typedef struct latentd_jobs {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* 1 once the job is cancelled: return LATENTD_CANCELLED then. Cheap. [any] */
    uint32_t (*cancelled)(struct latentd_call *call);
    /* A text into the result, once each; an error where the request says `strict`. [control] [job] */
    latentd_status (*notice)(struct latentd_call *call, struct latentd_text text);
    /*
     How much of what this call does is done, 0…1, and in a few words what that is; shown to who follows the job. What is told
     never goes back; less than a hundredth more is not told. [any]
     */
    latentd_status (*progress)(struct latentd_call *call, double done, struct latentd_text what);
    /*
     Shows an image on the way there to who follows the job, if the request asks for previews. It is read only from then on.
     [job]
     */
    latentd_status (*preview)(struct latentd_call *call, latentd_handle image);
    /*
     An image beside the results ("detected map", "before"), kept and sent with them: of picture `image`, or of all with
     LATENTD_ANY. A name has 1 to 64 characters; 256 of 128 MiB are possible. It is read only from then on. Dropped if the
     function does not return OK. [job]
     */
    latentd_status (*artifact)(struct latentd_call *call, struct latentd_text name, uint32_t image, latentd_handle handle);
    /*
     Counts memory that the plugin takes by itself, until this function of the plugin returns. MEMORY if it cannot be
     had. [job]
     */
    latentd_status (*reserve)(struct latentd_call *call, uint64_t host_bytes, uint64_t device_bytes);
    /*
     The path of a folder of the plugin's own, for all of its versions; made when it is first asked
     for. [job]
     */
    latentd_status (*folder)(struct latentd_call *call, struct latentd_text *path);
    /*
     What `[plugins.NAME.settings]` of the configuration file says: a map as MessagePack, valid by the manifest's schema of
     settings, with its defaults; lent until this function of the plugin returns. As the file is now: it may be read again
     while the daemon runs. [control] [job]
     */
    latentd_status (*settings)(struct latentd_call *call, struct latentd_bytes *map);
} latentd_jobs;

/* What the model is asked. */
typedef struct latentd_eval_args {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* LATENTD_NEXT, LATENTD_UNWRAPPED or LATENTD_BARE. */
    uint32_t inside;
    /* (rows, channels, h, w) f32: noisy latents, not scaled; no more latents a row than the pass has. */
    latentd_handle x;
    /* Their noise level; 0: that of the stage. */
    double sigma;
    /*
     latentd_row, one per row of x: given ones, changed or as they are, or new ones with a tag "NAME/what". Each is of a
     picture of the pass. context 0: that of the given row of the same picture and branch. mask, pooled and seed are not
     looked at. A row that shows a part of the picture says so by its region, and has its size: rows of one x are alike.
     */
    struct latentd_list rows;
} latentd_eval_args;

/* LATENTD_EVALS: what evaluates, in LATENTD_DENOISE_WRAP. */
typedef struct latentd_evals {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     Denoised samples (rows, channels, h, w) in the order of args->rows, as predictions of the noise-free latents. While it
     is under way other functions of the same instance may be called on this thread: keep no lock. What fails inside ends
     the job, whatever is answered then. UNSUPPORTED in other stages. [job]
     */
    latentd_status (*eval)(struct latentd_call *call, const struct latentd_eval_args *args, latentd_handle *outputs);
    /*
     All that a bank of the plugin's rules of attention has, latentd_kept; nothing before the first evaluation. NOT_FOUND: no
     rule of this pass names it. [job]
     */
    latentd_status (*bank)(struct latentd_call *call, struct latentd_text name, struct latentd_list *kept);
} latentd_evals;

/* What a tensor is. Types and devices are in DLPack's codes; strides count elements. */
typedef struct latentd_tensor_info {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* LATENTD_TENSOR or LATENTD_IMAGE. */
    uint32_t kind;
    /* LATENTD_FLOAT, …. */
    uint8_t code;
    /* Of a number. */
    uint8_t bits;
    /* 1. */
    uint16_t lanes;
    /* How many dimensions. */
    uint32_t ndim;
    /* 1: the host's memory. */
    int32_t device_type;
    /* Which device of its type. */
    int32_t device_id;
    /* The first `ndim` count. */
    int64_t shape[8];
    /* The first `ndim` count. */
    int64_t strides[8];
} latentd_tensor_info;

/* A mapping: set the first fields, the host fills the rest. */
typedef struct latentd_map {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* LATENTD_READ, LATENTD_WRITE or LATENTD_REPLACE. */
    uint32_t mode;
    /* What is wanted: the host converts u8 images to f32 of 0…1 for reading. */
    uint8_t code;
    /* 0: as stored, whatever `code` says. */
    uint8_t bits;
    /* 0 or 1. */
    uint16_t lanes;
    /* LATENTD_STORED or LATENTD_DENSE. Only LATENTD_READ may ask for another than what is stored. */
    uint32_t layout;
    /* Out: the first number. */
    void *data;
    /* Out: how many bytes. */
    uint64_t bytes;
    /* Out: in numbers. */
    int64_t strides[8];
} latentd_map;

/* LATENTD_TENSORS: tensors and images by their handles. */
typedef struct latentd_tensors {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     Allocates what `info` says (kind, type, shape; bits 0: f32, for images u8); all zero. Tensors lie dense, images
     interleaved. [job]
     */
    latentd_status (*alloc)(struct latentd_call *call, const struct latentd_tensor_info *info, latentd_handle *handle);
    /* Fills `info` as far as its size goes. [job] */
    latentd_status (*info)(struct latentd_call *call, latentd_handle handle, struct latentd_tensor_info *info);
    /* Keeps a handle beyond the call, until as many releases or the instance's end. [job] */
    latentd_status (*ref)(struct latentd_call *call, latentd_handle handle);
    /* Gives back what `ref` kept, or ends what the plugin allocated in this call. [job] */
    latentd_status (*release)(struct latentd_call *call, latentd_handle handle);
    /* Lets the plugin at the numbers, until unmap or the end of the call. [job] */
    latentd_status (*map)(struct latentd_call *call, latentd_handle handle, struct latentd_map *map);
    /* Ends all mappings of a handle. [job] */
    latentd_status (*unmap)(struct latentd_call *call, latentd_handle handle);
    /*
     Writes the SHA-256, 32 bytes, of a tensor or image: of how many dimensions as a byte, sizes as 8 little-endian bytes each,
     DLPack's code and bits as a byte each, and the numbers in logical order, little-endian. [job]
     */
    latentd_status (*digest)(struct latentd_call *call, latentd_handle handle, uint8_t *sha256);
} latentd_tensors;

/* LATENTD_TEXTS: the text encoder that goes with the stage. At hand in LATENTD_CONDITIONING, elsewhere UNSUPPORTED. */
typedef struct latentd_texts {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     The tokens of a text in whole chunks, latentd_token, as the request's prompts are read: emphasis, BREAK and embeddings,
     no schedule, no networks. INVALID: no UTF-8, too long (1 MiB), or a weight that is no number. [job]
     */
    latentd_status (*tokenise)(struct latentd_call *call, struct latentd_text text, struct latentd_list *tokens);
    /*
     From tokens in their order, whole chunks of 77, ids and weights changed as you like, with the request's clip skip and
     emphasis: a context (1, tokens, width), and (1, width) or 0. `like` is the place of a cond in the stage's list: the
     tokens stand in the place of its own beside what its prompt says at other steps (with those A1111's emphasis restores one
     mean), and the context is made as long. From a cond's own tokens it so gives the cond's own context, to the bit.
     LATENTD_ANY: alone. INVALID: no whole chunks, an id beyond the vocabulary, weights that are not finite. [job]
     */
    latentd_status (*encode)(struct latentd_call *call, struct latentd_list tokens, uint32_t like, latentd_handle *context, latentd_handle *pooled);
} latentd_texts;

/*
 LATENTD_VAE: the VAE of the pass's model. At hand in LATENTD_IMAGE_POST, elsewhere UNSUPPORTED. Sizes are whole eighths, and no
 picture is larger than one of the pass's: memory was planned for these.
 */
typedef struct latentd_vae {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     Latents (1, channels, h / 8, w / 8) in the model's scale of an image (1, 1 | 3, h, w): one of those that it may be, which the
     seed says, as a job with that seed begins with. INVALID: alpha, or a size that it cannot have. [job]
     */
    latentd_status (*encode_image)(struct latentd_call *call, latentd_handle image, uint64_t seed, latentd_handle *latents);
    /*
     The image (1, 3, 8 · h, 8 · w) of latents (1, channels, h, w) in the model's scale, decoded as the request's own are.
     INVALID: NaN, or sizes that they cannot have. [job]
     */
    latentd_status (*decode_latents)(struct latentd_call *call, latentd_handle latents, latentd_handle *image);
} latentd_vae;

/* LATENTD_OPS: tensors computed where they lie. */
typedef struct latentd_ops {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     Does latentd_op after latentd_op, 4096 at most. All of it is looked at before anything is computed; the first that cannot
     be done fails it all, with its number in the text. `results` has a place for each that is kept, in their order; they are
     as what `alloc` gives. Results are f32, and the same whatever the number of threads: which part of a sum is
     added when depends on shapes alone. Cancelled between two operations. MEMORY if what it takes at once cannot be
     had. [job]
     */
    latentd_status (*run)(struct latentd_call *call, struct latentd_list ops, latentd_handle *results);
    /*
     N(0, 1), f32, in the shape of `info`, as a job with this seed and this request's `rng` draws its first noise: with four
     dimensions each entry of the first is a picture's, of the seed plus its number; else all of it is one draw. `stream` 0 is
     that noise; another one has the seed whose little-endian bytes are the first 8 of the SHA-256 of "latentd noise",
     seed, stream, both as 8 little-endian bytes. [job]
     */
    latentd_status (*noise)(struct latentd_call *call, uint64_t seed, uint64_t stream, const struct latentd_tensor_info *info, latentd_handle *noise);
} latentd_ops;

/* One operation. Shapes broadcast as in NumPy; numbers of `v` that are factors or colours are rounded to f32. */
typedef struct latentd_op {
    /* LATENTD_OP_…. */
    uint32_t code;
    /* 1: its result is handed out. */
    uint32_t keep;
    /* A handle, or LATENTD_RESULT of an operation before this one. */
    uint64_t a;
    /* As `a`; 0 where there is none. */
    uint64_t b;
    /* As `b`. */
    uint64_t c;
    /* Whole numbers, as the operation says. */
    int64_t n[8];
    /* Numbers, as the operation says. */
    double v[8];
} latentd_op;

/*
 LATENTD_CACHE: what a plugin would rather not make again. It outlives jobs, not the daemon, and is private to the plugin's name
 and version.
 */
typedef struct latentd_cache {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     What was kept under a key of 1 to 65536 bytes, to be read; NOT_FOUND if nothing is, or is no longer. Derive keys from
     contents (`digest`) and parameters, never from handles. [job]
     */
    latentd_status (*get)(struct latentd_call *call, struct latentd_bytes key, latentd_handle *handle);
    /*
     Keeps a tensor or image under a key, in the place of what was there; it is read only from then on. Where there is too little
     room nothing is kept, which is no failure. [job]
     */
    latentd_status (*put)(struct latentd_call *call, struct latentd_bytes key, latentd_handle handle);
} latentd_cache;

/* A sub-job that is run. */
typedef struct latentd_subjob {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* The plan's; 0: one that was not planned. It is resolved now, and there may be no room for it. */
    uint32_t key;
    /* With key 0: as in latentd_subplan. */
    struct latentd_text method;
    /*
     Over the planned request. Of a planned one only what names nothing and takes no more memory may change: denoising_strength,
     steps (as many as planned at most), cfg_scale, subseed_strength, eta, s_churn, s_tmin, s_tmax, s_noise,
     eta_noise_seed_delta, mask_blur, mask_blur_x, mask_blur_y, mask_round, inpainting_fill, inpainting_mask_invert,
     inpaint_full_res_padding, initial_noise_multiplier, img2img_extra_noise, img2img_color_correction,
     img2img_background_color, inpainting_mask_weight. With key 0: over the job's own, as in latentd_subplan.
     */
    struct latentd_bytes patch;
    /* latentd_subimage: one picture each. */
    struct latentd_list images;
    /* Which share of what this call does it is, 0…1: told as `progress` of latentd_jobs is. 0: nothing is told. */
    double share;
} latentd_subjob;

/* What became of a sub-job. */
typedef struct latentd_subresult {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* OK, or why it failed: the job goes on. */
    latentd_status status;
    /* In words. */
    struct latentd_text error;
    /* latentd_subpicture, in the order of the images, unless another plugin changed their number. */
    struct latentd_list pictures;
    /*
     latentd_text: what it has to tell; it is not passed on by itself. Pictures that its plugins leave beside the results are
     dropped.
     */
    struct latentd_list notices;
} latentd_subresult;

/*
 LATENTD_SUBJOBS. At hand where no network is at work: in LATENTD_PASS_BEGIN, LATENTD_IMAGE_POST, LATENTD_BATCH_POST, and methods of kind "job"; elsewhere UNSUPPORTED. Its plugins have instances
 of their own. Jobs lie 3 deep within one another at most. The job's own networks may leave memory for the time if there is no
 room for both.
 */
typedef struct latentd_subjobs {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     Draws one, and waits for it. Its failure is told in `result`. INVALID: it was not planned so, or was run as often as it
     may be; CANCELLED: the job was. [job]
     */
    latentd_status (*run)(struct latentd_call *call, const struct latentd_subjob *subjob, struct latentd_subresult *result);
} latentd_subjobs;

/* A picture of a sub-job. */
typedef struct latentd_subimage {
    /* Its prompt, with the networks of the planned one: others are planned with a key of their own. Data null: the plan's. */
    struct latentd_text prompt;
    /* The same of its negative prompt. */
    struct latentd_text negative;
    /* Its seed. */
    uint64_t seed;
    /* Its variation's, where the request has a subseed_strength. */
    uint64_t subseed;
    /* img2img: the image that it begins with, (1, 1 | 3 | 4, h, w). */
    latentd_handle init;
    /* img2img: where to draw, an image as large as `init`; 0: everywhere. All images have one, or none. */
    latentd_handle mask;
    /* The job's picture that it is for: of prompts that are lists the plan's is that one's. */
    uint32_t image;
    /* 0. */
    uint32_t reserved;
} latentd_subimage;

/* A picture that a sub-job drew. */
typedef struct latentd_subpicture {
    /* What draws it alone. */
    uint64_t seed;
    /* (1, 3 | 4, h, w). */
    latentd_handle pixels;
    /* What its file would tell. */
    struct latentd_text infotext;
} latentd_subpicture;

/* What is known of a library file. */
typedef struct latentd_file_info {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* "checkpoint", "lora", "controlnet", "upscaler", "annotator", …: the kinds that `x-library` names. */
    struct latentd_text kind;
    /* As requests call it. */
    struct latentd_text name;
    /* What it is of, such as "sd1"; empty where that is not known. */
    struct latentd_text family;
    /* In hex; empty as long as it is not known. Nothing waits for it. */
    struct latentd_text sha256;
    /* Never empty; the same for the same contents of the same file, and for no others: for keys of caches. */
    struct latentd_bytes identity;
    /* What its maker wrote into it: a map of texts, as MessagePack. */
    struct latentd_bytes metadata;
} latentd_file_info;

/* A file that a plugin saves. */
typedef struct latentd_save {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 1: a file of this name is replaced. 0: there must be none. */
    uint32_t replace;
    /* One of those that the manifest asks for: `[capabilities] save = ["face"]`. */
    struct latentd_text kind;
    /* Without folder and extension, as requests will call it. */
    struct latentd_text name;
    /* At least one: latentd_saved_tensor, each of another name, at most 256 MiB together. */
    struct latentd_list tensors;
    /* What the file says of itself: a map of texts, as MessagePack; may be empty. */
    struct latentd_bytes metadata;
} latentd_save;

/*
 LATENTD_LIBRARY: the library of models, by kinds and names. Files are held open as they are found, until the job ends: one
 that is replaced meanwhile is read as it was, one that is written to is an error.
 */
typedef struct latentd_library {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     The file of a kind that a name means, as `x-library` finds it. NOT_FOUND, with the nearest. What job.plan finds has the
     same number in the instances that are made after it. [control] [job]
     */
    latentd_status (*find)(struct latentd_call *call, struct latentd_text kind, struct latentd_text name, latentd_file *file);
    /* The names of a kind, as they are listed: latentd_text. [control] [job] */
    latentd_status (*names)(struct latentd_call *call, struct latentd_text kind, struct latentd_list *names);
    /* What is known of a file, as far as the struct goes. [control] [job] */
    latentd_status (*info)(struct latentd_call *call, latentd_file file, struct latentd_file_info *info);
    /* A tensor of a file of weights, by its name, as f32. NOT_FOUND, with the nearest. [job] */
    latentd_status (*tensor)(struct latentd_call *call, latentd_file file, struct latentd_text name, latentd_handle *tensor);
    /* The whole file as bytes: a tensor of one dimension, u8, read only. [job] */
    latentd_status (*open)(struct latentd_call *call, latentd_file file, latentd_handle *bytes);
    /*
     Writes a safetensors file into the folder for its kind, whole or not at all; it may be named from then on. INVALID if the
     manifest does not ask for the kind, or there is such a file and `replace` is 0. What is already written stays if the job
     fails later. [job]
     */
    latentd_status (*save)(struct latentd_call *call, const struct latentd_save *save, latentd_file *file);
    /* Removes a file of a kind that the manifest asks to save. Who holds it open goes on with it. [job] */
    latentd_status (*remove)(struct latentd_call *call, latentd_file file);
} latentd_library;

/* An opened network or ONNX graph. 0 is none. */
typedef uint64_t latentd_net;

/* How a network is run. */
typedef struct latentd_network_run {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* Which of its parts, as `describe` names them. Empty: the whole. */
    struct latentd_text entry;
    /* latentd_input, by name, in any order. */
    struct latentd_list inputs;
    /*
     The rows of the evaluation that it is run for, in this order, each once; null: all of them, in theirs. Only looked at
     with `of_stage`.
     */
    const uint32_t *rows;
    /* How many `rows` there are. */
    uint32_t row_count;
    /*
     1: in LATENTD_DENOISE_WRAP and LATENTD_CONTROL_RESIDUALS, UNSUPPORTED elsewhere, inputs of these names that are left out
     are those of the evaluation that the stage is of: `x`, its noisy latents as the UNet takes them, over
     √(sigma² + 1); `timestep`; `context` and `pooled`, what rows are told. Of inputs that are given, those with an entry per
     row have as many as there are rows. Rows whose contexts are of different length are run one after the other; outputs
     come in the order of the rows. 0: no input may be left out.
     */
    uint32_t of_stage;
} latentd_network_run;

/*
 LATENTD_NETWORKS: networks that this host knows, by library file, told by what is in it. They count in the memory that the
 job may take, and stay in memory for others while there is room; they compute on the host's device and threads, in the
 job's precision.
 */
typedef struct latentd_networks {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     Opens a file until `close` or the instance's end. `on_base` 1: built over the UNet whose turn it is, with the LoRAs that
     change it, for files that say by what their weights differ from it, as `describe` tells; UNSUPPORTED for others, and 0 for
     those. It is run as long as that UNet's turn lasts: latentd_model_info has another `turn` then. MODEL with a text: it is no network that this host knows. MEMORY if there is no room. [job]
     */
    latentd_status (*open)(struct latentd_call *call, latentd_file file, uint32_t on_base, latentd_net *network);
    /* Lets go of it. [job] */
    latentd_status (*close)(struct latentd_call *call, latentd_net network);
    /*
     What a file's network is, as MessagePack: `kind`, such as "taesd"; `on_base`, whether it is built over a UNet; `entries`, a map by their names of maps with `inputs`
     and `outputs`, lists of maps with `name`, `sizes` (numbers, and texts for those that are free) and `about`.
     [control] [job]
     */
    latentd_status (*describe)(struct latentd_call *call, latentd_file file, struct latentd_bytes *map);
    /* Runs it. `outputs` become latentd_input, in the order that `describe` tells. [job] */
    latentd_status (*run)(struct latentd_call *call, latentd_net network, const struct latentd_network_run *run, struct latentd_list *outputs);
} latentd_networks;

/*
 LATENTD_ONNX: ONNX files of the library, such as those of the kinds "annotator" and "detector". A file is read whole and
 must be one file; numbers are computed in f32, whole ones in 32 bits.
 */
typedef struct latentd_onnx {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     Opens a file until `close` or the instance's end. MODEL with a text: it is no ONNX, or does what this host does not know.
     MEMORY if there is no room. [job]
     */
    latentd_status (*open)(struct latentd_call *call, latentd_file file, latentd_net *graph);
    /* Lets go of it. [job] */
    latentd_status (*close)(struct latentd_call *call, latentd_net graph);
    /*
     What a file says of itself, as MessagePack: `inputs` and `outputs`, lists of maps with `name`, `type` (NumPy's name, or
     nil) and `sizes` (nil, or a list of numbers, texts for those that are free, and nil where nothing is said);
     `initializers`, a list of the same; `operators`, the version of ONNX's operators. Nothing is loaded.
     [control] [job]
     */
    latentd_status (*describe)(struct latentd_call *call, latentd_file file, struct latentd_bytes *map);
    /* Numbers that are kept in the file, as a tensor of f32: `name` is one of `initializers`. NOT_FOUND, with the nearest. [job] */
    latentd_status (*initializer)(struct latentd_call *call, latentd_net graph, struct latentd_text name, latentd_handle *tensor);
    /*
     Runs it. `inputs` are latentd_input, one for each of the file's, by name, in any order: tensors, whole numbers where it
     takes such, or images, as (1, channels, h, w) of 0…1, or of 0…255 where it takes uint8. `outputs` become latentd_input,
     in the file's order, tensors of f32. All outputs may take 1 GiB. It runs in a process of its own: MODEL if that crashes
     or takes too long, MEMORY if it needs more than a run may take, CANCELLED as soon as the job is. [job]
     */
    latentd_status (*run)(struct latentd_call *call, latentd_net graph, struct latentd_list inputs, struct latentd_list *outputs);
} latentd_onnx;

/* A tensor with its name: one to run with, one that came out, or, in a plan, the sizes of one. */
typedef struct latentd_input {
    /* Its name. */
    struct latentd_text name;
    /* The tensor or image; 0 in a plan. */
    latentd_handle handle;
    /* How many dimensions. Only looked at in a plan; set where a tensor came out. */
    uint32_t ndim;
    /* 0. */
    uint32_t reserved;
    /* The first `ndim` count. */
    int64_t shape[8];
} latentd_input;

/*
 Part of a canvas, in pixels of the pass. x and y may be negative and x + w beyond `canvas_w`: a tile that hangs over. What is
 no tile has the whole canvas.
 */
typedef struct latentd_region {
    /* From the left. */
    int32_t x;
    /* From the top. */
    int32_t y;
    /* Of the part. */
    uint32_t w;
    /* Of the part. */
    uint32_t h;
    /* Of the whole. */
    uint32_t canvas_w;
    /* Of the whole. */
    uint32_t canvas_h;
} latentd_region;

/* One picture with what belongs to it. */
typedef struct latentd_picture {
    /* Which of the job's. */
    uint32_t image;
    /* 0. */
    uint32_t reserved;
    /* What draws it alone. */
    uint64_t seed;
    /*
     An image, or 0 where there is none yet. In LATENTD_PASS_BEGIN what it is drawn from: RGB as it will be encoded, filled in
     already where it is drawn if the request says so; 0 if that is noise, or what another pass drew.
     */
    latentd_handle pixels;
    /* In LATENTD_PASS_BEGIN where it is drawn anew, an image of one channel of the pass's size, white for anew; 0 for everywhere. */
    latentd_handle mask;
    /*
     In LATENTD_PASS_BEGIN the part of the user's picture, in its pixels, that `pixels` are of; all of it unless only what is
     masked is drawn.
     */
    struct latentd_region crop;
    /* In LATENTD_PASS_BEGIN `pixels` as they were before they were filled in where they are drawn; 0 if they were not. */
    latentd_handle unfilled;
} latentd_picture;

/* One row of a batch. Rows come in any order and company: tell them by these fields, never by index. */
typedef struct latentd_row {
    /* Which of the job's pictures; of loops, and of what is continued part by part, each is drawn by itself, from 0. */
    uint32_t image;
    /* Which branch of its guidance; the same number all through a pass. */
    uint32_t branch;
    /* LATENTD_COND, LATENTD_UNCOND or LATENTD_OTHER. */
    uint32_t role;
    /* 0. */
    uint32_t reserved;
    /* Of its picture. */
    uint64_t seed;
    /*
     guided = uncond + cfg_scale · Σ weight · mask · (cond − uncond). Where a step has no uncond row of a picture, its first
     cond stands in and cfg_scale is 1; with an OTHER row of the sampler's own (edit models) it is made otherwise.
     */
    double weight;
    /* Empty: the sampler's own; else whose and what. */
    struct latentd_text tag;
    /* The part of the picture that it shows. */
    struct latentd_region region;
    /* Where the branch counts: a tensor (1, 1, h, w) of latents, f32 of 0…1; 0: everywhere. */
    latentd_handle mask;
    /* What the model is told: a tensor (1, tokens, width), f32; 0 where a stage does not tell. */
    latentd_handle context;
    /* Likewise (1, width); 0 of models that have none. */
    latentd_handle pooled;
} latentd_row;

/* A request that may be rewritten. */
typedef struct latentd_rewrite {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     The request as it was sent, with seeds drawn, styles in the prompts and the defaults of plugins' parameters put in: names
     and sizes are not settled yet. Pictures are left out of it.
     */
    const struct latentd_job *job;
    /*
     latentd_prompt: prompt, negative_prompt, those of a hires pass and of regions, and each parameter of any plugin of the
     request that its schema marks `x-prompt` (true, or "negative").
     */
    struct latentd_list prompts;
    /* uint64_t, one for each picture: what draws it alone. */
    struct latentd_list seeds;
} latentd_rewrite;

/* A stage with one function. [control] */
typedef struct latentd_rewrite_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     At submit, before anything of the request is resolved; no instance is there. `reply` in slot i: a patch for the i-th
     request, counted from 0; 256 at most, which become one job with their pictures one after the other. Without a reply
     the request stays as it is. A patch is a map over the request: maps merge, all else replaces, nil takes away; at its top
     a key that begins with "/" is a JSON pointer to one place, of a list's element too. `prompt`, `negative_prompt` and
     `x-prompt` parameters may become lists, one text for each picture; count and seeds may change. What comes of it is
     looked at as if a client had sent it. How pictures come back (output, preview, strict, keep_alive, on_disconnect) is the
     user's. Within 5 seconds. Not called for what is read back from a picture.
     */
    latentd_status (*run)(struct latentd_call *call, const struct latentd_rewrite *rewrite);
} latentd_rewrite_stage;

/* A prompt of a request. */
typedef struct latentd_prompt {
    /* As it was written, styles around it. */
    struct latentd_text text;
    /*
     JSON pointer into the request: "/prompt", "/regions/0/prompt", "/plugins/face-fix/passes/0/ad_prompt"; of a list that
     has a text for each picture "/prompt/3".
     */
    struct latentd_text field;
    /* LATENTD_PROMPT or LATENTD_NEGATIVE. */
    uint32_t kind;
    /* Which of the request's pictures it is for; LATENTD_ANY: all of them. */
    uint32_t image;
} latentd_prompt;

/* Something that rows look up otherwise. Several rules on one attention all hold. */
typedef struct latentd_attention_rule {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* LATENTD_ATTENTION_SET, LATENTD_ATTENTION_OWN, … */
    uint32_t kind;
    /* LATENTD_SELF or LATENTD_CROSS. */
    uint32_t which;
    /* LATENTD_INPUT, LATENTD_MIDDLE, LATENTD_OUTPUT, or LATENTD_ANY. */
    uint32_t part;
    /* Which block of that part, or LATENTD_ANY. One that has no attention is nowhere. */
    uint32_t index;
    /* Which transformer layer within the block, or LATENTD_ANY. */
    uint32_t layer;
    /* Of rows of these roles, a sum of LATENTD_ROLES(…); 0: all. */
    uint32_t roles;
    /* Of this branch, or LATENTD_ANY. */
    uint32_t branch;
    /* Of this picture, or LATENTD_ANY. */
    uint32_t image;
    /* 0. */
    uint32_t reserved;
    /* Of rows with exactly this tag; empty: the sampler's own. */
    struct latentd_text tag;
    /* Of the pass's steps, 0…1; both 0: all. */
    double from;
    /* As `from`; not included. */
    double until;
    /* Of SET, OWN, APPEND and BANK. 1 is as it is; zero means zero. */
    double weight;
    /*
     SET and APPEND, in LATENTD_CROSS: (n, tokens, width) f32, as the model is told it, through each block's own projections; n is 1, or as
     many as the pass has pictures. 0 with `key` and `value`.
     */
    latentd_handle context;
    /* SET and APPEND: (n, tokens, channels) f32, of exactly one attention, which part, index and layer name. */
    latentd_handle key;
    /* As `key`, of the same sizes. */
    latentd_handle value;
    /*
     SET and OWN: where, over the canvas: an image of one channel, or a tensor (1, 1, h, w) f32 of 0…1; of any size, resized
     (bilinear) to each block; of a tile its part counts. 0: everywhere.
     */
    latentd_handle mask;
    /*
     BIAS: (1, keys) f32, or (queries, keys) of exactly one attention, which part, index and layer name. There must be as many as
     the row has when it is evaluated: tokens of what it is told, or places of its picture there.
     */
    latentd_handle bias;
    /*
     CAPTURE, BANK and RECEIVED: a name of the plugin's own, 1 to 64 bytes. It has what it has as long as the pass and its model
     last; `bank` of latentd_evals reads it.
     */
    struct latentd_text bank;
} latentd_attention_rule;

/* A pass begins, or another model goes on in it. */
typedef struct latentd_attention {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* Of what the model is told. */
    uint32_t context_width;
    /* Which. */
    const struct latentd_pass *pass;
    /* Declares a rule, for as long as this pass and its model last. Tensors are the host's from then on. [job] */
    latentd_status (*add)(struct latentd_call *call, const struct latentd_attention_rule *rule);
} latentd_attention;

/* LATENTD_ATTENTION. */
typedef struct latentd_attention_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* [job] */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_attention *args);
} latentd_attention_stage;

/* A method that is called. */
typedef struct latentd_method {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* What the manifest calls it, without the plugin's name. */
    struct latentd_text name;
    /* MessagePack, a map: valid by the method's schema, with its defaults; pictures as ext 1, library files as ext 2. */
    struct latentd_bytes params;
} latentd_method;

/*
 The extension LATENTD_RPC_METHODS: what the manifest's [methods.NAME] name. Reply 0 of both: the result, a map in MessagePack.
 In it an ext 1 is an image, which goes to the client as a PNG, or a tensor, which goes as its numbers.
 */
typedef struct latentd_methods_extension {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     A method of kind "quick": it is called at once, without an instance, several at a time, and has 5 seconds. It has
     tensors, images and files, but no networks. May be null if there is none. [control]
     */
    latentd_status (*quick)(struct latentd_call *call, const struct latentd_method *method);
    /*
     A method of kind "job": job.plan is told of it under its whole name, it waits for its turn, and has an instance of its own.
     May be null if there is none. [job]
     */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_method *method);
} latentd_methods_extension;

/* What an engine is to do. */
typedef struct latentd_engine_run {
    /* sizeof of it, as its writer knows it. */
    uint32_t size;
    /* LATENTD_UPSCALER, …. */
    uint32_t kind;
    /* A name of the manifest, or of a library file. */
    struct latentd_text entry;
    /* That file; 0 for a name of the manifest. */
    latentd_file file;
    /* An image of u8. With `as_float` a tensor (images, 3, h, w) f32 of 0…1. */
    latentd_handle image;
    /* An image of one channel as large; 0: none. */
    latentd_handle mask;
    /*
     Wanted, in pixels; 0: the engine's choice. An upscaler goes over the image until it is as large, three times at most, and
     Lanczos does the rest.
     */
    uint32_t width;
    /* As `width`. */
    uint32_t height;
    /* 0…1; of a restorer. */
    double strength;
    /* 0…1; what scores below is left out. */
    double threshold;
    /*
     MessagePack, a map of more; may be empty. Of an upscaler whoever runs it may say `tile` and `overlap` (pixels; its own
     otherwise) and `share` (0…1 of the work of who asks, whose progress is told tile by tile); it does not see these itself.
     */
    struct latentd_bytes params;
} latentd_engine_run;

/* What an engine says of an entry. All zero as it is given: as usual. */
typedef struct latentd_engine_facts {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* How many times as large an upscaler makes a picture, 1 to 16; others leave it 0. */
    uint32_t scale;
    /* Sides of the tiles that it is given, in pixels of the picture; 0: the whole at once. */
    uint32_t tile;
    /* Pixels over which tiles fade into one another, at most half of a tile. */
    uint32_t overlap;
    /* What both sides are to be a multiple of, 0 any: the host fills up by mirroring, and cuts the result. */
    uint32_t multiple;
    /* Tiles of one size that a run may be given at once, as entries of the tensor; 0 and 1: one. More only with `as_float`. */
    uint32_t most_at_once;
    /* 1: pictures come and go as tensors (images, 3, h, w) f32 of 0…1; the host rounds and cuts off. */
    uint32_t as_float;
    /* 0. */
    uint32_t reserved;
} latentd_engine_facts;

/* One thing that a detector or tagger found. */
typedef struct latentd_detection {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* The engine's number for its class. */
    uint32_t class_id;
    /* "face", "1girl". */
    struct latentd_text label;
    /* 0…1. */
    float score;
    /* From the left, in pixels of the image; all four 0: no box. */
    float x0;
    /* From the top. */
    float y0;
    /* Beyond the last column. */
    float x1;
    /* Beyond the last row. */
    float y1;
    /* How many points there are. */
    uint32_t point_count;
    /* x, y, x, y, …; null if there are none. */
    const float *points;
    /* An image of one channel as large as the whole image, white where it is; 0: none. */
    latentd_handle mask;
    /* A tensor (width): what tells it from others of its class; 0: none. */
    latentd_handle embedding;
    /* MessagePack, a map of more; may be empty. */
    struct latentd_bytes data;
} latentd_detection;

/* The extension LATENTD_ENGINES. */
typedef struct latentd_engine_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     As a request comes that names the entry (`run` has neither image nor mask): fills `facts`. What `plan` takes besides are
     networks that it will open. May be null if no entry is an upscaler. [control]
     */
    latentd_status (*describe)(struct latentd_call *call, const struct latentd_engine_run *run, const struct latentd_plan *plan, struct latentd_engine_facts *facts);
    /*
     Slot 0: the image, of kinds that have one: of a preprocessor of `width` × `height` where they are not 0, with 1, 3 or 4
     channels. `detected`, which is null for kinds that find nothing, takes one thing found, which is copied. Reply 0: a map of more.
     The instance is made for engines alone: its parameters are empty. [job]
     */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_engine_run *run, latentd_status (*detected)(struct latentd_call *call, const struct latentd_detection *detection));
} latentd_engine_stage;

/* What a run left. */
typedef struct latentd_engine_result {
    /* sizeof of it, as its reader knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* The image; 0 of kinds that have none. */
    latentd_handle image;
    /* latentd_detection. */
    struct latentd_list detections;
    /* MessagePack, a map of more; may be empty. */
    struct latentd_bytes data;
} latentd_engine_result;

/* A tensor of a file that a plugin saves. */
typedef struct latentd_saved_tensor {
    /* Its name in the file. */
    struct latentd_text name;
    /* The tensor: f32. */
    latentd_handle tensor;
} latentd_saved_tensor;

/* Something that is added. Several at one place add up. */
typedef struct latentd_residual {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* LATENTD_AT_ENCODER, LATENTD_AT_SKIP or LATENTD_AT_MIDDLE. */
    uint32_t at;
    /* Which input block or skip, from 0; of LATENTD_AT_MIDDLE 0. */
    uint32_t index;
    /* How many `rows` there are. */
    uint32_t row_count;
    /*
     The rows of the evaluation that the tensor's entries are for, each once; null: all of them. Others stay as they are, to the
     bit.
     */
    const uint32_t *rows;
    /* (rows, channels, h, w) f32, of the place's size; or (1, channels, h, w), for all of these rows. */
    latentd_handle tensor;
    /*
     How much of it counts where, over the canvas: an image of one channel, or a tensor (1, 1, h, w) f32 of 0…1; of any size,
     resized (bilinear) to the place; of a tile its part counts. 0: all of it everywhere.
     */
    latentd_handle mask;
    /* What it is multiplied by. 1 is as it is; of zero nothing is added. */
    double scale;
} latentd_residual;

/* The UNet is about to be asked. */
typedef struct latentd_control {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* What it is of, whoever asked for it: all its rows, with what the model is told. */
    const struct latentd_eval *eval;
    /* (rows, channels, h, w) f32, as the UNet takes it: x / √(sigma² + 1). What some models are shown behind it is not among it. */
    latentd_handle x;
    /*
     Adds something in this evaluation. The tensor is the host's from then on. INVALID with a text: there is no such place or
     row, or a size or number that is none there. [job]
     */
    latentd_status (*add)(struct latentd_call *call, const struct latentd_residual *residual);
} latentd_control;

/* LATENTD_CONTROL_RESIDUALS. */
typedef struct latentd_control_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* [job] */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_control *args);
} latentd_control_stage;

/* A model. */
typedef struct latentd_model_info {
    /* sizeof of it, as the plugin knows it; stays. */
    uint32_t size;
    /* LATENTD_PREDICTS_… */
    uint32_t prediction;
    /* "sd1", and so on. */
    struct latentd_text family;
    /* Channels of latents. */
    uint32_t latent_channels;
    /* Channels that the UNet takes: those, and what it is shown behind them. */
    uint32_t in_channels;
    /* Pixels to a latent, each way. Pictures are multiples of it. */
    uint32_t latent_down;
    /* Of what the model is told: (tokens, width). */
    uint32_t context_width;
    /* Of the pooled text; 0 of models that take none. */
    uint32_t pooled_width;
    /* Skips, which are input blocks, and places of LATENTD_AT_ENCODER and LATENTD_AT_SKIP. */
    uint32_t skips;
    /* What the VAE's own latents are multiplied by. */
    double latent_scale;
    /*
     latentd_model_site, in the order in which they run: skip i is stored by LATENTD_INPUT i, and taken by LATENTD_OUTPUT
     skips − 1 − i.
     */
    struct latentd_list sites;
    /*
     Another number each time another model's turn comes within the job: what was opened with on_base is closed then, and
     opened again.
     */
    uint32_t turn;
    /* 0. */
    uint32_t reserved;
} latentd_model_info;

/* LATENTD_MODELS: what the job's model is made of. */
typedef struct latentd_model_describe {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     Fills `info` as far as its size goes: of the job's own checkpoint while it is planned; of the one whose turn it is in
     stages, which another pass or a refiner may change. UNSUPPORTED where there is none. [control] [job]
     */
    latentd_status (*describe)(struct latentd_call *call, struct latentd_model_info *info);
} latentd_model_describe;

/* A block of the UNet. */
typedef struct latentd_model_site {
    /* LATENTD_INPUT, LATENTD_MIDDLE or LATENTD_OUTPUT. */
    uint32_t part;
    /* Which block of that part; LATENTD_INPUT 0 is the first convolution. */
    uint32_t index;
    /* Of h: after an input or middle block, before an output block. */
    uint32_t channels;
    /* Of the skip that joins it, in LATENTD_OUTPUT; else 0. */
    uint32_t skip_channels;
    /* What the latents' size is divided by there, rounded up. */
    uint32_t down;
    /* Transformer layers in the block. */
    uint32_t attentions;
    /* Attention heads of each. */
    uint32_t heads;
    /* Channels of those layers; 0 without. */
    uint32_t width;
} latentd_model_site;

/* LATENTD_PASS_BEGIN. */
typedef struct latentd_pass_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     Base and hires, each of every `n_iter`, before anything of it is encoded. Pictures that are replaced are drawn from, and a
     mask says where: on latents, to an inpainting checkpoint, and where the user's picture lies over what was drawn, which
     stays the user's, as do the colours that are corrected to. The part that only what is masked is drawn of stays too.
     [job]
     */
    latentd_status (*run)(void *instance, struct latentd_call *call, const struct latentd_pass *pass);
} latentd_pass_stage;

/* A tag of a prompt: `<NAME:ARGUMENT:…>`. */
typedef struct latentd_tag {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* "lora", or the name of a tag that the host does not know. */
    struct latentd_text name;
    /* latentd_text: what stands between colons behind the name, as it is written. */
    struct latentd_list arguments;
    /* Of a LoRA its file, or 0 if there is none of its name; of others 0. */
    latentd_file file;
    /* The plugin's own parameters of the request, with their defaults. */
    struct latentd_bytes params;
} latentd_tag;

/* A stage with one function. [control] */
typedef struct latentd_tags_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     At submit, for each tag of a request's first prompt that the host does not know, and each LoRA with arguments that it does not know, once each; no
     instance is there. `reply` in slot 0: a map. `claimed: true`: it is this plugin's, and nobody is told that it was left
     out; the tag stays in the picture's text, so that the request read back says it again. `parameters`: a merge patch over
     the plugin's own, which are then looked at as if the request had said so. `scales: [[prefix, factor], …]`, of a LoRA:
     its strength times `factor` (-1000 to 1000) in tensors whose names begin so, the longest prefix going before; names are LDM's, as in
     "model.diffusion_model.input_blocks.4." and "cond_stage_model.". Without a reply it is not this plugin's, and the next is asked. Within 5 seconds.
     */
    latentd_status (*run)(struct latentd_call *call, const struct latentd_tag *tag);
} latentd_tags_stage;

/*
 LATENTD_REGISTRY. Engines that are run are planned before: by `engine` of latentd_plan, or as names that parameters have by
 `x-engine`. Engines may run others, four deep.
 */
typedef struct latentd_registry {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* latentd_text: the names of a kind, sorted. [control] [job] */
    latentd_status (*names)(struct latentd_call *call, uint32_t kind, struct latentd_list *names);
    /*
     Runs an engine on a whole picture: `image` is an image, of which the engine sees three colours; a mask is one of one
     channel as large; `file` is 0. Fills `result`, whose handles are the plugin's own. NOT_FOUND: it was not planned.
     Upscalers are run tile by tile, alpha apart; restorers leave alpha as it is. While it waits, engines of the same plugin
     may be called on that thread, from a stage with another instance, from an engine with its own. [job]
     */
    latentd_status (*run)(struct latentd_call *call, const struct latentd_engine_run *run, struct latentd_engine_result *result);
} latentd_registry;

/* What a rule of attention kept. */
typedef struct latentd_kept {
    /* LATENTD_SELF or LATENTD_CROSS. */
    uint32_t which;
    /* LATENTD_INPUT, LATENTD_MIDDLE or LATENTD_OUTPUT. */
    uint32_t part;
    /* Which block of that part. */
    uint32_t index;
    /* Which transformer layer within the block. */
    uint32_t layer;
    /* Which of the job's pictures. */
    uint32_t image;
    /* 0. */
    uint32_t reserved;
    /* (1, tokens, channels) of CAPTURE; (1, keys) of RECEIVED. f32. */
    latentd_handle tensor;
} latentd_kept;

/* A picture's text. */
typedef struct latentd_infotext {
    /* sizeof of it, as the host knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /* latentd_pair: those of which no field of a request says anything, in their order. */
    struct latentd_list pairs;
    /* The prompt. */
    struct latentd_text prompt;
    /* The negative one. */
    struct latentd_text negative_prompt;
} latentd_infotext;

/* LATENTD_INFOTEXT_PARSE. [control] */
typedef struct latentd_infotext_stage {
    /* sizeof of it, as the plugin knows it. */
    uint32_t size;
    /* 0. */
    uint32_t reserved;
    /*
     As somebody asks how a picture was made; no instance is there, and no job. `reply` in slot 0: MessagePack, a map: what this
     plugin would be given to do the same, by its schema. Without a reply the text says nothing of it. Not called where the
     text names the plugin already, as texts of this host do. Within 5 seconds; what is wrong is a notice.
     */
    latentd_status (*run)(struct latentd_call *call, const struct latentd_infotext *text);
} latentd_infotext_stage;

/* `KEY: VALUE` of a picture's text. */
typedef struct latentd_pair {
    /* As it stands there. */
    struct latentd_text key;
    /* Without the quotes that it had there. */
    struct latentd_text value;
} latentd_pair;

/* Success. */
#define LATENTD_OK 0

/* job.plan: not for me. A stage: as if it had never been called. */
#define LATENTD_SKIP 1

/* The job was cancelled. */
#define LATENTD_CANCELLED 2

/* What the user sent is wrong. */
#define LATENTD_INVALID 3

/* There is no such thing. */
#define LATENTD_NOT_FOUND 4

/* Memory cannot be had. */
#define LATENTD_MEMORY 5

/* This host, model or device cannot. */
#define LATENTD_UNSUPPORTED 6

/* Not now. */
#define LATENTD_BUSY 7

/* A file is not what it should be. */
#define LATENTD_MODEL 8

/* Anything else that went wrong in the plugin. */
#define LATENTD_FAILED 9

/* It took too long. */
#define LATENTD_DEADLINE 10

/* Wrong thread, dead handle, a table that is too small: a bug in whoever called. */
#define LATENTD_MISUSE 11

/* Ids of stages and services. */
/* Extension of the plugin, latentd_plan_extension. */
#define LATENTD_JOB_PLAN "job.plan/draft-1"
/* Stage, latentd_conditioning_stage: what images are told. Slots: 2·i context, 2·i + 1 pooled of conds[i], each of the same size. */
#define LATENTD_CONDITIONING "conditioning/draft-1"
/* Stage, latentd_rewrite_stage: the request before it is resolved. Slot i: a patch that makes the i-th of it. */
#define LATENTD_REQUEST_REWRITE "request.rewrite/draft-1"
/* Stage, latentd_pass_stage: a pass begins. Slots: 2·i pixels, 2·i + 1 mask of pictures[i], each of the same size; a mask may be given where there is none. */
#define LATENTD_PASS_BEGIN "pass.begin/draft-1"
/* Stage, latentd_tags_stage: a tag of the prompt that the host does not know. Slot 0: whose it is. */
#define LATENTD_PROMPT_TAGS "prompt.tags/draft-1"
/* Stage, latentd_latents_stage: initial noise of unit variance, before it is scaled. Slot 0: the noise. */
#define LATENTD_NOISE_INIT "noise.init/draft-1"
/* Stage, latentd_latents_stage: what the sampler ended with. Slot 0: the latents. */
#define LATENTD_LATENT_FINAL "latent.final/draft-1"
/* Stage, latentd_denoise_stage: the sampler is about to ask the model. Slot 0: x. */
#define LATENTD_DENOISE_BEFORE "denoise.before/draft-1"
/* Stage, latentd_denoise_stage: the model is about to be asked; x has one entry per row. Slot 0: outputs, one per row, as samples: ask whoever lies inside with LATENTD_EVALS, as often as you like, of any rows. Replacing nothing, or SKIP, leaves it to them. */
#define LATENTD_DENOISE_WRAP "denoise.wrap/draft-1"
/* Stage, latentd_control_stage: the UNet is about to be asked, once for all rows of an evaluation; what is added within it is told. */
#define LATENTD_CONTROL_RESIDUALS "control.residuals/draft-1"
/* Stage, latentd_unet_block_stage: something goes by in the UNet. Slots: 0 h, 1 the skip, each of the same size. */
#define LATENTD_UNET_BLOCK "unet.block/draft-1"
/* Stage, latentd_attention_stage: a pass's model is ready; what rows look up otherwise is declared. */
#define LATENTD_ATTENTION "attention/draft-1"
/* Stage, latentd_denoise_stage: outputs are there, and what guidance makes of them. Slot 0: guided. */
#define LATENTD_DENOISE_COMBINE "denoise.combine/draft-1"
/* Stage, latentd_pictures_stage: all pictures of a pass as decoded, before they are laid over the user's. Slot i: pixels of pictures[i], of the same size. */
#define LATENTD_IMAGE_POST "image.post/draft-1"
/* Stage, latentd_pictures_stage: pictures as they are given back, after they are laid over the user's; all of a drawing in one call. Slot i: pixels of pictures[i], of any size up to 16384, with or without opacity. */
#define LATENTD_BATCH_POST "batch.post/draft-1"
/* Extension of the plugin, latentd_methods_extension: what the manifest's [methods.NAME] name. */
#define LATENTD_RPC_METHODS "rpc.methods/draft-1"
/* Stage, latentd_pictures_stage: pictures are finished, and their texts are written. `reply` in slot i: MessagePack, a map of texts: pairs for the text of pictures[i], in the map's order. */
#define LATENTD_INFOTEXT_WRITE "infotext.write/draft-1"
/* Stage, latentd_infotext_stage: a picture's text is read. */
#define LATENTD_INFOTEXT_PARSE "infotext.parse/draft-1"
/* Extension of the plugin, latentd_engine_stage: what the manifest's [engines.KIND] name. */
#define LATENTD_ENGINES "engines/draft-1"
/* Service, latentd_jobs. */
#define LATENTD_JOBS "job/draft-1"
/* Service, latentd_model_describe. */
#define LATENTD_MODELS "model.describe/draft-1"
/* Service, latentd_evals. */
#define LATENTD_EVALS "model.eval/draft-1"
/* Service, latentd_tensors. */
#define LATENTD_TENSORS "tensor/draft-1"
/* Service, latentd_texts. */
#define LATENTD_TEXTS "text/draft-1"
/* Service, latentd_vae. */
#define LATENTD_VAE "vae/draft-1"
/* Service, latentd_ops. */
#define LATENTD_OPS "tensor.ops/draft-1"
/* Service, latentd_library. */
#define LATENTD_LIBRARY "library/draft-1"
/* Service, latentd_networks. */
#define LATENTD_NETWORKS "network/draft-1"
/* Service, latentd_onnx. */
#define LATENTD_ONNX "onnx/draft-1"
/* Service, latentd_registry. */
#define LATENTD_REGISTRY "engine/draft-1"
/* Service, latentd_cache. */
#define LATENTD_CACHE "cache/draft-1"
/* Service, latentd_subjobs. */
#define LATENTD_SUBJOBS "subjob/draft-1"
/* The one symbol of a plugin. */
#ifdef _WIN32
#define LATENTD_EXPORT __declspec(dllexport)
#else
#define LATENTD_EXPORT __attribute__((visibility("default")))
#endif
#ifdef __cplusplus
extern "C" {
#endif
LATENTD_EXPORT extern const latentd_plugin_entry latentd_entry;
#ifdef __cplusplus
} /* extern "C" */
#endif
#define LATENTD_ENTRY const latentd_plugin_entry latentd_entry

/* A manifest: as text, or the file itself, since one with a schema is longer than a literal should be. Its path counts from
 * where the compiler is started, then from the folders of -I; what it contains is no dependency that compilers list. */
#ifdef __APPLE__
#define LATENTD_SECTION "__DATA,__latentd"
#else
#define LATENTD_SECTION ".latentd"
#endif
#if defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 11)
#define LATENTD_KEPT used, retain
#else
#define LATENTD_KEPT used
#endif
#define LATENTD_MANIFEST(text) \
    __attribute__((section(LATENTD_SECTION), LATENTD_KEPT)) static const char latentd_manifest_[] = text
#ifdef __APPLE__
#define LATENTD_MANIFEST_FILE(path) __asm__(".section __DATA,__latentd\n\t.incbin \"" path "\"\n\t.text")
#elif defined(__ELF__)
#define LATENTD_MANIFEST_FILE(path) \
    __asm__(".pushsection " LATENTD_SECTION ",\"aR\",%progbits\n\t.incbin \"" path "\"\n\t.popsection")
#endif

/* Whether whoever wrote a struct or table knew this field. */
#define LATENTD_HAS(table, field) \
    ((table)->size >= (uint64_t)((const char *)(&(table)->field + 1) - (const char *)(table)))
/* The i-th element of a list, and whether its elements have a field. */
#define LATENTD_AT(type, list, i) \
    ((const type *)(const void *)((const char *)(list).items + (size_t)(i) * (list).stride))
#define LATENTD_HAS_IN(type, list, field) ((list).stride >= offsetof(type, field) + sizeof(((type *)0)->field))

/* The bit of a role (LATENTD_COND, ...) in a selection of roles, which is a sum of them. */
#define LATENTD_ROLES(role) (1u << (role))

/* A literal as latentd_text. */
#ifdef __cplusplus
#define LATENTD_TEXT(literal) (latentd_text{ (literal), sizeof(literal) - 1 })
#else
#define LATENTD_TEXT(literal) ((latentd_text){ (literal), sizeof(literal) - 1 })
#endif

/* The result of the i-th operation of a program, as an operand of a later one. */
#define LATENTD_RESULT(i) (LATENTD_RESULT_BIT | (uint64_t)(i))

/* Whether a text is this id. */
static inline int latentd_is(latentd_text text, const char *id) {
    uint64_t i = 0;
    while (i < text.length && id[i] && text.data[i] == id[i]) i++;
    return i == text.length && !id[i];
}

#endif /* LATENTD_H */
