/* Faults of a disk, for a program that is started with this library in LD_PRELOAD.
 *
 * The file named by GATEWRT_FAULT has a line `KIND AT TIMES`: from the call number AT on, counted since that line is there,
 * TIMES calls that write, truncate or synchronise a file of the database fail. KIND is an error number, or `kill`, which ends
 * the program before the call, or `killed`, which ends it after it. Without the file every call works.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char line[64];
static long calls;

static int is_database(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "/gatewrt.db") != NULL;
}

/* Kind of the fault that this call has: 0 for none, an error number, -1 for kill, -2 for killed. */
static int fault(int fd) {
    const char *control = getenv("GATEWRT_FAULT");
    if (!control || !is_database(fd)) return 0;
    pthread_mutex_lock(&lock);
    char now[64] = "", kind[16] = "";
    long at = 0, times = 0;
    int file = open(control, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        ssize_t length = pread(file, now, sizeof now - 1, 0);
        now[length > 0 ? length : 0] = 0;
        close(file);
    }
    if (strcmp(now, line)) {
        strcpy(line, now);
        calls = 0;
    }
    int is_due = sscanf(now, "%15s %ld %ld", kind, &at, &times) == 3 && ++calls >= at && calls < at + times;
    pthread_mutex_unlock(&lock);
    if (!is_due) return 0;
    return !strcmp(kind, "kill") ? -1 : !strcmp(kind, "killed") ? -2 : atoi(kind);
}

#define FAULTY(type, name, parameters, arguments)                                    \
    type name parameters {                                                           \
        static type(*real) parameters;                                               \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);               \
        int kind = fault(fd);                                                        \
        if (kind > 0) {                                                              \
            errno = kind;                                                            \
            return -1;                                                               \
        }                                                                            \
        if (kind == -1) kill(getpid(), SIGKILL);                                     \
        type result = real arguments;                                                \
        if (kind == -2) kill(getpid(), SIGKILL);                                     \
        return result;                                                               \
    }

FAULTY(ssize_t, write, (int fd, const void *bytes, size_t count), (fd, bytes, count))
FAULTY(ssize_t, pwrite, (int fd, const void *bytes, size_t count, off_t at), (fd, bytes, count, at))
FAULTY(ssize_t, pwrite64, (int fd, const void *bytes, size_t count, off64_t at), (fd, bytes, count, at))
FAULTY(int, fsync, (int fd), (fd))
FAULTY(int, fdatasync, (int fd), (fd))
FAULTY(int, ftruncate, (int fd, off_t length), (fd, length))
FAULTY(int, ftruncate64, (int fd, off64_t length), (fd, length))
