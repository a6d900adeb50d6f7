/* A death at each step, for a program that is started with this library in LD_PRELOAD: it ends before its call number
 * GATEWRT_STEP of those that change a file or a folder.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static void step(void) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static long calls;
    const char *last = getenv("GATEWRT_STEP");
    pthread_mutex_lock(&lock);
    if (last && ++calls == atol(last)) kill(getpid(), SIGKILL);
    pthread_mutex_unlock(&lock);
}

#define STEP(type, name, parameters, arguments)                                      \
    type name parameters {                                                           \
        static type(*real) parameters;                                               \
        if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);               \
        step();                                                                      \
        return real arguments;                                                       \
    }

STEP(int, rename, (const char *from, const char *to), (from, to))
STEP(int, unlink, (const char *path), (path))
STEP(int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
STEP(int, mkdir, (const char *path, mode_t mode), (path, mode))
STEP(int, rmdir, (const char *path), (path))
STEP(int, fsync, (int fd), (fd))
STEP(int, fdatasync, (int fd), (fd))
