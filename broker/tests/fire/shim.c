/* A disk that is full, or slow, when its control says so: preloaded into a process, it stands before the C
 * library's calls. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 0, NO_GROWTH = 1, NO_WRITES = 2 };

/* Shared with the test: 12 bytes, in the machine's order. */
struct control {
    volatile uint32_t fullness;
    volatile uint32_t sync_delay_ms;
    /* Calls that were made to fail or to wait. */
    volatile uint32_t hits;
};

static struct control *control;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SOTTO_FIRE_CONTROL");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return;
    void *mapped = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) control = mapped;
    close(file);
}

/* Is there no room for bytes of a file up to `end`? */
static int is_refused(int file, off_t end) {
    if (control == NULL || control->fullness == ROOM) return 0;
    struct stat status;
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) return 0;
    if (control->fullness == NO_GROWTH && end <= status.st_size) return 0;
    __sync_fetch_and_add(&control->hits, 1);
    errno = ENOSPC;
    return 1;
}

static off_t sum(const struct iovec *parts, int count) {
    off_t sum = 0;
    for (int at = 0; at < count; at++) sum += parts[at].iov_len;
    return sum;
}

static void wait_for_disk(void) {
    uint32_t delay_ms = control == NULL ? 0 : control->sync_delay_ms;
    if (delay_ms == 0) return;
    __sync_fetch_and_add(&control->hits, 1);
    struct timespec delay = {delay_ms / 1000, (delay_ms % 1000) * 1000000L};
    nanosleep(&delay, NULL);
}

#define NEXT(name) \
    static __typeof__(name) *next; \
    if (next == NULL) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) {
    NEXT(pwrite);
    return is_refused(file, offset + (off_t)length) ? -1 : next(file, bytes, length, offset);
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off64_t offset) {
    NEXT(pwrite64);
    return is_refused(file, offset + (off_t)length) ? -1 : next(file, bytes, length, offset);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset) {
    NEXT(pwritev);
    return is_refused(file, offset + sum(parts, count)) ? -1 : next(file, parts, count, offset);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t offset) {
    NEXT(pwritev64);
    return is_refused(file, offset + sum(parts, count)) ? -1 : next(file, parts, count, offset);
}

int posix_fallocate(int file, off_t offset, off_t length) {
    NEXT(posix_fallocate);
    return is_refused(file, offset + length) ? ENOSPC : next(file, offset, length);
}

int posix_fallocate64(int file, off64_t offset, off64_t length) {
    NEXT(posix_fallocate64);
    return is_refused(file, offset + length) ? ENOSPC : next(file, offset, length);
}

int fsync(int file) {
    NEXT(fsync);
    wait_for_disk();
    return next(file);
}

int fdatasync(int file) {
    NEXT(fdatasync);
    wait_for_disk();
    return next(file);
}
