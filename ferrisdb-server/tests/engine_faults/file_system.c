/* A file system that fails on demand in one folder, put between a program and libc with LD_PRELOAD.
 *
 * Every operation that changes the folder is counted: creating, writing, syncing, renaming, removing, cutting. The one
 * with the number in FAULT_AT meets the trouble in FAULT_KIND:
 *
 *   kill     the process ends before the operation
 *   tear     half of what was to be written arrives, then the process ends
 *   power    the process ends, and the disk forgets what was not synced: the ends of files, new names, renames, removals.
 *            FAULT_SEED draws how much of each survives all the same, as on a real disk
 *   refuse   the operation fails with EIO, this one alone
 *   full     from here on nothing can be written: ENOSPC
 *   flip     FAULT_AT counts reads at a place instead; one bit of what this one reads is wrong
 *
 * At the end of a process that was left alone, the numbers of operations and of reads go to the file FAULT_COUNT.
 * FAULT_FOLDER is the folder, as an absolute path; FAULT_UNDO is an empty folder beside it, for what a power cut brings back.
 *
 * With FAULT_LIES the disk says that it has synced and has not. The engine's own messages (LOG) do not count.
 *
 * What was synced is known by file: a file's length at its last sync, and for names whether the folder was synced since.
 * That is enough for an engine that only ever appends; overwriting in place is not modelled.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { FILES_MAX = 4096, CHANGES_MAX = 4096, PATH_BYTES = 512 };
enum what { CREATED, RENAMED, REMOVED };

/* A file of the folder, by its newest name, and how much of it has been synced. */
struct file {
    char path[PATH_BYTES];
    off_t synced;
};
/* A change of a name that the folder was not synced after. */
struct change {
    enum what what;
    char path[PATH_BYTES], from[PATH_BYTES], undo[PATH_BYTES];
};

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static struct file files[FILES_MAX];
static int files_count;
static struct change changes[CHANGES_MAX];
static int changes_count, undo_count;
static long operations, reads, fault_at;
static const char *folder, *kind = "none", *undo_folder;
/* libc's own functions, behind ours. */
static struct {
    int (*open)(const char *, int, ...);
    ssize_t (*write)(int, const void *, size_t);
    ssize_t (*pwrite)(int, const void *, size_t, off_t);
    ssize_t (*pread)(int, void *, size_t, off_t);
    int (*fsync)(int);
    int (*fdatasync)(int);
    int (*rename)(const char *, const char *);
    int (*unlink)(const char *);
    int (*ftruncate)(int, off_t);
} real;

static int is(const char *name) { return strcmp(kind, name) == 0; }

__attribute__((constructor)) static void begin(void) {
    real.open = dlsym(RTLD_NEXT, "open");
    real.write = dlsym(RTLD_NEXT, "write");
    real.pwrite = dlsym(RTLD_NEXT, "pwrite");
    real.pread = dlsym(RTLD_NEXT, "pread");
    real.fsync = dlsym(RTLD_NEXT, "fsync");
    real.fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real.rename = dlsym(RTLD_NEXT, "rename");
    real.unlink = dlsym(RTLD_NEXT, "unlink");
    real.ftruncate = dlsym(RTLD_NEXT, "ftruncate");
    undo_folder = getenv("FAULT_UNDO");
    if (getenv("FAULT_KIND")) kind = getenv("FAULT_KIND");
    if (getenv("FAULT_AT")) fault_at = atol(getenv("FAULT_AT"));
    srand(getenv("FAULT_SEED") ? atoi(getenv("FAULT_SEED")) : 1);
    /* Last: from here on the folder is watched. */
    folder = getenv("FAULT_FOLDER");
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("FAULT_COUNT");
    FILE *out = path ? fopen(path, "w") : NULL;
    if (out) {
        fprintf(out, "%ld %ld\n", operations, reads);
        fclose(out);
    }
}

static int inside(const char *path) {
    size_t length = folder ? strlen(folder) : 0;
    if (length && strstr(path, "/LOG")) return 0;
    return length && strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* The path of an open file, if it lies in the folder. */
static int path_of(int descriptor, char path[PATH_BYTES]) {
    char name[64];
    if (!folder) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(name, path, PATH_BYTES - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return inside(path);
}

static struct file *file_of(const char *path) {
    for (int i = 0; i < files_count; i++)
        if (strcmp(files[i].path, path) == 0) return &files[i];
    if (files_count == FILES_MAX) abort();
    struct file *file = &files[files_count++];
    struct stat about;
    snprintf(file->path, PATH_BYTES, "%s", path);
    /* What was there before this process began has survived already. */
    file->synced = stat(path, &about) == 0 ? about.st_size : 0;
    return file;
}

static struct change *note(enum what what, const char *path) {
    if (changes_count == CHANGES_MAX) abort();
    struct change *change = &changes[changes_count++];
    memset(change, 0, sizeof *change);
    change->what = what;
    snprintf(change->path, PATH_BYTES, "%s", path);
    return change;
}

/* Keeps what a path leads to, so that a power cut can bring it back. */
static void keep(struct change *change, const char *path) {
    snprintf(change->undo, PATH_BYTES, "%s/%d", undo_folder, undo_count++);
    if (link(path, change->undo) != 0) change->undo[0] = 0;
}

/* The folder was synced: its names stay as they are. */
static void names_are_synced(void) {
    for (int i = 0; i < changes_count; i++)
        if (changes[i].undo[0]) real.unlink(changes[i].undo);
    changes_count = 0;
}

/* Leaves the disk as it is found after the power has gone. */
static void power_cut(void) {
    for (int i = 0; i < files_count; i++) {
        struct stat about;
        if (stat(files[i].path, &about) != 0 || about.st_size <= files[i].synced) continue;
        off_t left = files[i].synced + rand() % (about.st_size - files[i].synced + 1);
        if (rand() % 2) left = files[i].synced;
        if (truncate(files[i].path, left) != 0) abort();
    }
    /* Names survive up to one of the changes, and what came after it is undone, newest first. */
    int survive = changes_count ? rand() % (changes_count + 1) : 0;
    while (changes_count > survive) {
        struct change *change = &changes[--changes_count];
        if (change->what == CREATED) real.unlink(change->path);
        if (change->what == RENAMED) real.rename(change->path, change->from);
        if (change->undo[0]) real.rename(change->undo, change->path);
    }
}

/* Counts an operation. Returns 1 if it is to fail, with errno set; does not return if the process ends. */
static int meets_fault(void) {
    long number = ++operations;
    if (!fault_at || is("flip") || number < fault_at) return 0;
    if (is("full")) {
        errno = ENOSPC;
        return 1;
    }
    if (number > fault_at || is("tear")) return 0;
    if (is("refuse")) {
        errno = EIO;
        return 1;
    }
    if (is("power")) power_cut();
    _exit(77);
}

static int dies_within(void) { return fault_at && is("tear") && operations == fault_at; }

static int open_file(const char *path, int flags, mode_t mode) {
    struct stat about;
    if (!folder || !inside(path)) return real.open(path, flags, mode);
    pthread_mutex_lock(&lock);
    int creates = (flags & O_CREAT) && stat(path, &about) != 0, result = -1;
    if (!creates || !meets_fault()) {
        if (creates && dies_within()) _exit(77);
        result = real.open(path, flags, mode);
        if (result >= 0 && creates) {
            /* The name may have belonged to another file before. */
            file_of(path)->synced = 0;
            note(CREATED, path);
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

#define OPEN(name)                                                 \
    int name(const char *path, int flags, ...) {                   \
        va_list more;                                              \
        va_start(more, flags);                                     \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                              \
        return open_file(path, flags, mode);                       \
    }
OPEN(open)
OPEN(open64)

/* Writes at a place, or at the end where the place is -1. */
static ssize_t write_file(int descriptor, const void *bytes, size_t count, off_t place) {
    char path[PATH_BYTES];
    if (!path_of(descriptor, path))
        return place < 0 ? real.write(descriptor, bytes, count) : real.pwrite(descriptor, bytes, count, place);
    pthread_mutex_lock(&lock);
    ssize_t result = -1;
    if (!meets_fault()) {
        file_of(path);
        if (dies_within()) count /= 2;
        result = place < 0 ? real.write(descriptor, bytes, count) : real.pwrite(descriptor, bytes, count, place);
        if (dies_within()) _exit(77);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int descriptor, const void *bytes, size_t count) { return write_file(descriptor, bytes, count, -1); }
ssize_t pwrite(int descriptor, const void *bytes, size_t count, off_t place) {
    return write_file(descriptor, bytes, count, place);
}
ssize_t pwrite64(int descriptor, const void *bytes, size_t count, off_t place) {
    return write_file(descriptor, bytes, count, place);
}

/* Turns a bit of what was read, if it is this read's turn. */
static ssize_t flip(int descriptor, char *bytes, ssize_t count) {
    char path[PATH_BYTES];
    if (count <= 0 || !path_of(descriptor, path)) return count;
    pthread_mutex_lock(&lock);
    if (++reads == fault_at && is("flip")) bytes[rand() % count] ^= 1 << rand() % 8;
    pthread_mutex_unlock(&lock);
    return count;
}

ssize_t pread(int descriptor, void *bytes, size_t count, off_t place) {
    return flip(descriptor, bytes, real.pread(descriptor, bytes, count, place));
}
ssize_t pread64(int descriptor, void *bytes, size_t count, off_t place) {
    return flip(descriptor, bytes, real.pread(descriptor, bytes, count, place));
}

static int sync_file(int descriptor, int (*sync)(int)) {
    char path[PATH_BYTES];
    struct stat about;
    if (!path_of(descriptor, path)) return sync(descriptor);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!meets_fault()) {
        if (dies_within()) _exit(77);
        result = sync(descriptor);
        if (result == 0 && !getenv("FAULT_LIES") && fstat(descriptor, &about) == 0) {
            if (S_ISDIR(about.st_mode))
                names_are_synced();
            else
                file_of(path)->synced = about.st_size;
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int descriptor) { return sync_file(descriptor, real.fsync); }
int fdatasync(int descriptor) { return sync_file(descriptor, real.fdatasync); }

int rename(const char *from, const char *to) {
    struct stat about;
    if (!folder || !inside(to)) return real.rename(from, to);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!meets_fault()) {
        if (dies_within()) _exit(77);
        struct change *change = note(RENAMED, to);
        snprintf(change->from, PATH_BYTES, "%s", from);
        if (stat(to, &about) == 0) keep(change, to);
        off_t synced = file_of(from)->synced;
        result = real.rename(from, to);
        file_of(to)->synced = synced;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path) {
    if (!folder || !inside(path)) return real.unlink(path);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!meets_fault()) {
        if (dies_within()) _exit(77);
        keep(note(REMOVED, path), path);
        result = real.unlink(path);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

static int cut_file(int descriptor, off_t length) {
    char path[PATH_BYTES];
    if (!path_of(descriptor, path)) return real.ftruncate(descriptor, length);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (!meets_fault()) {
        if (dies_within()) _exit(77);
        result = real.ftruncate(descriptor, length);
        struct file *file = file_of(path);
        if (length < file->synced) file->synced = length;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int descriptor, off_t length) { return cut_file(descriptor, length); }
int ftruncate64(int descriptor, off_t length) { return cut_file(descriptor, length); }
