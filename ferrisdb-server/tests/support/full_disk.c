/* A disk that is full for as long as the file FULL_DISK is there, put between a program and libc with LD_PRELOAD.
 *
 * Whatever takes space of the folder FULL_DISK_OF fails with ENOSPC then: new files, writes, and files that are made
 * longer. Reading, removing and renaming work, as on a real disk. How much space there is said to be does not change, so
 * that it is the refused write which tells the program.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static const char *full, *folder;

__attribute__((constructor)) static void begin(void) {
    full = getenv("FULL_DISK");
    folder = getenv("FULL_DISK_OF");
}

static int is_full(void) { return full && folder && access(full, F_OK) == 0; }

static int inside(const char *path) {
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* Whether an open file may take no more space; sets errno. */
static int refused(int descriptor) {
    char link[64], path[4096];
    if (!is_full()) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (!inside(path)) return 0;
    errno = ENOSPC;
    return 1;
}

/* A function of libc behind ours of the same name. */
#define LIBC(result, name, ...)                                                       \
    static result (*libc_##name)(__VA_ARGS__);                                        \
    __attribute__((constructor)) static void find_##name(void) {                      \
        libc_##name = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name);                \
    }
LIBC(int, open64, const char *, int, ...)
LIBC(ssize_t, write, int, const void *, size_t)
LIBC(ssize_t, pwrite64, int, const void *, size_t, off64_t)
LIBC(int, ftruncate64, int, off64_t)
LIBC(int, fallocate64, int, int, off64_t, off64_t)

static int open_file(const char *path, int flags, mode_t mode) {
    struct stat about;
    if ((flags & O_CREAT) && is_full() && inside(path) && stat(path, &about) != 0) {
        errno = ENOSPC;
        return -1;
    }
    return libc_open64(path, flags, mode);
}

#define OPEN(name)                                                  \
    int name(const char *path, int flags, ...) {                    \
        va_list more;                                               \
        va_start(more, flags);                                      \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                               \
        return open_file(path, flags, mode);                        \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int descriptor, const void *bytes, size_t count) {
    return refused(descriptor) ? -1 : libc_write(descriptor, bytes, count);
}

#define PWRITE(name)                                                                      \
    ssize_t name(int descriptor, const void *bytes, size_t count, off64_t place) {        \
        return refused(descriptor) ? -1 : libc_pwrite64(descriptor, bytes, count, place); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

static int cut_file(int descriptor, off64_t length) {
    struct stat about;
    if (fstat(descriptor, &about) == 0 && length > about.st_size && refused(descriptor)) return -1;
    return libc_ftruncate64(descriptor, length);
}
int ftruncate(int descriptor, off_t length) { return cut_file(descriptor, length); }
int ftruncate64(int descriptor, off64_t length) { return cut_file(descriptor, length); }

#define FALLOCATE(name)                                                                       \
    int name(int descriptor, int mode, off64_t begin, off64_t length) {                       \
        return refused(descriptor) ? -1 : libc_fallocate64(descriptor, mode, begin, length); \
    }
FALLOCATE(fallocate)
FALLOCATE(fallocate64)
