/* Tries what a confined process may not, and says for each what came of it: the number of the error, or 0. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <asm/ioctls.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <netinet/in.h>
#include <unistd.h>

static void said(const char *what, long answer) {
    printf("%s %d\n", what, answer == -1 ? errno : 0);
    fflush(stdout);
}

static void said_of(const char *what, int number, long answer) {
    printf("%s/%d %d\n", what, number, answer == -1 ? errno : 0);
    fflush(stdout);
}

static long opens(const char *path, int flags) {
    int descriptor = open(path, flags, 0600);
    if (descriptor >= 0) close(descriptor);
    return descriptor;
}

static long maps(size_t size, int flags) {
    void *place = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (place == MAP_FAILED) return -1;
    munmap(place, size);
    return 0;
}

static void *nothing(void *given) { return given; }

static long begins(void) {
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, nothing, NULL);
    if (failed) { errno = failed; return -1; }
    pthread_join(thread, NULL);
    return 0;
}

/* Another process: its number, which is never used by one that is confined. */
static void others(pid_t other) {
    char path[64];
    said("kill", kill(other, 0));
    said("kill-group", kill(-other, 0));
    said("kill-all", kill(-1, 0));
    said("kill-own", kill(getpid(), 0));
    said("tgkill", syscall(SYS_tgkill, other, other, 0));
    said("tkill", syscall(SYS_tkill, other, 0));
    said("tgkill-own", syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), 0));
    siginfo_t info = {.si_code = SI_QUEUE};
    said("sigqueue", syscall(SYS_rt_sigqueueinfo, other, SIGUSR1, &info));
    said("pidfd_open", syscall(SYS_pidfd_open, other, 0));
    said("ptrace", ptrace(PTRACE_ATTACH, other, 0, 0));
    char bytes[8];
    struct iovec local = {bytes, 8}, remote = {(void *)0x400000, 8};
    said("process_vm_readv", process_vm_readv(other, &local, 1, &remote, 1, 0));
    snprintf(path, sizeof path, "/proc/%d/mem", other);
    said("proc-mem", opens(path, O_RDWR));
    snprintf(path, sizeof path, "/proc/%d/environ", other);
    said("proc-environ", opens(path, O_RDONLY));
    said("setowner", fcntl(0, F_SETOWN, other));
    said("setsignal", fcntl(0, F_SETSIG, SIGKILL));
    int number = other;
    said("ioctl-owner", ioctl(0, FIOSETOWN, &number));
    struct rlimit limit;
    said("prlimit", prlimit(other, RLIMIT_NOFILE, NULL, &limit));
    said("prlimit-own", prlimit(0, RLIMIT_NOFILE, NULL, &limit));
    limit.rlim_cur = limit.rlim_max = 1 << 20;
    said("raise", prlimit(0, RLIMIT_NOFILE, &limit, NULL));
    limit.rlim_cur = limit.rlim_max = RLIM_INFINITY;
    said("raise-memory", prlimit(0, RLIMIT_DATA, &limit, NULL));
    said("setpriority", setpriority(PRIO_PROCESS, other, 19));
    said("setpriority-user", setpriority(PRIO_USER, 0, 19));
    said("setpriority-own", setpriority(PRIO_PROCESS, 0, 1));
    cpu_set_t all;
    sched_getaffinity(0, sizeof all, &all);
    said("affinity", sched_setaffinity(other, sizeof all, &all));
    said("affinity-own", sched_setaffinity(0, sizeof all, &all));
}

static void processes(void) {
    said("thread", begins());
    pid_t child = fork();
    if (child == 0) _exit(0);
    said("fork", child);
    child = vfork();
    if (child == 0) _exit(0);
    said("vfork", child);
    said("clone", syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
    struct clone_args args = {.exit_signal = SIGCHLD};
    said("clone3", syscall(SYS_clone3, &args, sizeof args));
    said("system", system("true") == 0 ? 0 : (errno = EPERM, -1));
    said("unshare", unshare(CLONE_NEWUSER));
    said("chroot", chroot("/tmp"));
    said("personality", personality(ADDR_NO_RANDOMIZE));
    said("personality-ask", personality(0xffffffff));
    said("death", prctl(PR_SET_PDEATHSIG, 0));
    said("typed", ioctl(0, TIOCSTI, "x"));
    said("newest", syscall(500));
    said("io_uring", syscall(SYS_io_uring_setup, 4, NULL));
    said("bpf", syscall(SYS_bpf, 0, NULL, 0));
    said("keyctl", syscall(SYS_keyctl, 0, 0));
    said("perf", syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
    said("userfaultfd", syscall(SYS_userfaultfd, 0));
}

static void sockets(void) {
    for (int family = 1; family <= 17; family++) said_of("socket", family, socket(family, SOCK_STREAM, 0));
    said("datagrams", socket(AF_INET, SOCK_DGRAM, 0));
    struct sockaddr_un name = {AF_UNIX, "\0latentd-test"};
    said("bind", bind(0, (struct sockaddr *)&name, sizeof name));
    int two[2];
    said("pair", socketpair(AF_UNIX, SOCK_STREAM, 0, two));
    said("pair-packets", socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, two));
    said("pair-datagrams", socketpair(AF_UNIX, SOCK_DGRAM, 0, two));
    said("pair-raw", socketpair(AF_UNIX, SOCK_RAW, 0, two));
    said("pipe", pipe(two));
}

static void memory(size_t most) {
    said("half", maps(most / 2, MAP_PRIVATE | MAP_ANONYMOUS));
    said("more", maps(most + (16 << 20), MAP_PRIVATE | MAP_ANONYMOUS));
    void *given = malloc(most + (16 << 20));
    said("malloc", given ? 0 : -1);
    said("shared", maps(4096, MAP_SHARED | MAP_ANONYMOUS));
    said("validated", maps(4096, MAP_SHARED_VALIDATE | MAP_ANONYMOUS));
    said("stack", maps(4096, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN));
    said("zero", opens("/dev/zero", O_RDONLY));
    said("memfd", memfd_create("x", 0));
    said("shmget", shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600));
    said("msgget", msgget(IPC_PRIVATE, IPC_CREAT | 0600));
    said("shm", opens("/dev/shm/latentd-test", O_RDWR | O_CREAT));
    /* Reserved, and made to be written later. */
    void *place = mmap(NULL, most * 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    said("reserve", place == MAP_FAILED ? -1 : 0);
    said("commit", mprotect(place, most * 2, PROT_READ | PROT_WRITE));
    struct rlimit limit;
    getrlimit(RLIMIT_STACK, &limit);
    said("stack-limit", limit.rlim_max > (64 << 20) ? (errno = EFBIG, -1) : 0);
}

/* Files: a folder that is granted to be written, a file that is granted to be read, a home. */
static void files(const char *folder, const char *file, const char *home) {
    char path[4096];
    said("read-file", opens(file, O_RDONLY));
    said("change-file", opens(file, O_WRONLY));
    said("append-file", opens(file, O_WRONLY | O_APPEND));
    said("chmod-file", chmod(file, 0777));
    said("chown-file", chown(file, 1, 1));
    said("times-file", utimensat(AT_FDCWD, file, NULL, 0));
    said("rename-file", rename(file, "/tmp/latentd-other"));
    said("remove-file", unlink(file));
    said("home", opens(home, O_RDONLY | O_DIRECTORY));
    snprintf(path, sizeof path, "%s/secret", home);
    said("secret", opens(path, O_RDONLY));
    said("passwd", opens("/etc/passwd", O_RDONLY));
    said("root", opens("/", O_RDONLY | O_DIRECTORY));
    said("tmp", opens("/tmp/latentd-new", O_RDWR | O_CREAT));
    said("proc", opens("/proc", O_RDONLY | O_DIRECTORY));
    said("proc-1", opens("/proc/1/status", O_RDONLY));
    said("own-status", opens("/proc/self/status", O_RDONLY));
    said("own-task", opens("/proc/thread-self/status", O_RDONLY));
    said("cpuinfo", opens("/proc/cpuinfo", O_RDONLY));
    said("meminfo", opens("/proc/meminfo", O_RDONLY));
    said("cpus", opens("/sys/devices/system/cpu/online", O_RDONLY));
    said("null", opens("/dev/null", O_RDWR));
    said("random", opens("/dev/urandom", O_RDONLY));
    said("tty", opens("/dev/tty", O_RDWR));
    said("library", opens("/usr/bin/env", O_RDONLY));
    said("change-library", opens("/usr/bin/env", O_WRONLY));
    said("watch", inotify_init());
    snprintf(path, sizeof path, "%s/new", folder);
    int made = open(path, O_RDWR | O_CREAT, 0600);
    said("make", made);
    said("write", write(made, "x", 1));
    said("own-times", futimens(made, NULL));
    said("truncate", ftruncate(made, 0));
    said("list", opens(folder, O_RDONLY | O_DIRECTORY));
    snprintf(path, sizeof path, "%s/sub", folder);
    said("mkdir", mkdir(path, 0700));
    said("rmdir", rmdir(path));
    snprintf(path, sizeof path, "%s/pipe", folder);
    said("mkfifo", mkfifo(path, 0600));
    snprintf(path, sizeof path, "%s/out", folder);
    said("symlink", symlink(home, path));
    strcat(path, "/secret");
    said("through-link", opens(path, O_RDONLY));
    snprintf(path, sizeof path, "%s/linked", folder);
    said("link", link(file, path));
    snprintf(path, sizeof path, "%s/new", folder);
    said("unlink", unlink(path));
}

extern char **environ;

static void inside(void) {
    for (char **each = environ; *each; each++) printf("%s\n", *each);
    for (int number = 0; number < 1024; number++)
        if (fcntl(number, F_GETFD) != -1) printf("open %d\n", number);
    char here[4096];
    printf("at %s\n", getcwd(here, sizeof here));
    printf("privileges %d\n", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    struct rlimit limit;
    getrlimit(RLIMIT_CORE, &limit);
    printf("core %d\n", (int)limit.rlim_max);
    FILE *status = fopen("/proc/self/status", "r");
    while (fgets(here, sizeof here, status))
        if (!strncmp(here, "CapEff", 6) || !strncmp(here, "CapPrm", 6)) printf("%s", here);
}

int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "";
    if (!strcmp(what, "others")) others(atoi(arguments[2]));
    else if (!strcmp(what, "processes")) processes();
    else if (!strcmp(what, "sockets")) sockets();
    else if (!strcmp(what, "memory")) memory(strtoull(arguments[2], NULL, 10));
    else if (!strcmp(what, "files")) files(arguments[2], arguments[3], arguments[4]);
    else if (!strcmp(what, "inside")) inside();
    else if (!strcmp(what, "abort")) abort();
    else if (!strcmp(what, "wait")) { puts("ready"); fflush(stdout); pause(); }
    else return 2;
    return 0;
}
