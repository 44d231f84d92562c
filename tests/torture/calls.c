/* Counts the calls of a process that change files below a folder, and disturbs the one with a number.

   Preloaded (LD_PRELOAD), it stands before libc's own functions: whatever writes, Python or a
   library in C, is seen. Nothing is disturbed or recorded until `torture_arm` or `torture_trace`.
   The forms of the same call (open64, openat, ...) are one here.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum action { NOTHING, KILL_BEFORE, KILL_AFTER, KILL_WITHIN, FAIL, FAIL_FROM, SHORT, SIGNAL };
enum kind { OPEN = 1, WRITE, TRUNCATE, SYNC, RENAME, LINK, MKDIR, UNLINK, MODE };

static char root[PATH_MAX];
static size_t root_length;
static long armed_at = -1, *counter; /* shared with the parent, which outlives a kill */
static int armed_action, armed_value, trace = -1;

#define REAL(type, name, ...)                                            \
  static type (*real)(__VA_ARGS__);                                      \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);

__attribute__((constructor)) static void begin(void) {
  counter = mmap(0, sizeof *counter, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static ssize_t really_write(int fd, const void* data, size_t size) {
  REAL(ssize_t, "write", int, const void*, size_t);
  return real(fd, data, size);
}

/* Names whose writers keep their own time: what the process prints, TensorBoard's thread. */
static int is_watched(const char* path) {
  if (!root_length || strncmp(path, root, root_length)) return 0;
  if (path[root_length] != '/' && path[root_length] != 0) return 0;
  const char* name = strrchr(path, '/') + 1;
  return strncmp(name, ".out", 4) && strncmp(name, ".err", 4) && strncmp(name, "events.out", 10);
}

static int path_of_descriptor(int fd, char* out) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, out, PATH_MAX - 1);
  out[size < 0 ? 0 : size] = 0;
  return size > 0;
}

static void absolute(int folder, const char* path, char* out) {
  if (path[0] == '/') {
    snprintf(out, PATH_MAX, "%s", path);
    return;
  }
  char base[PATH_MAX];
  if (folder == AT_FDCWD ? !getcwd(base, sizeof base) : !path_of_descriptor(folder, base)) base[0] = 0;
  snprintf(out, PATH_MAX, "%.2000s/%.2000s", base, path);
}

/* One record of a trace: numbers, two paths, data. */
static void record(int kind, uint64_t inode, uint64_t offset, const char* path, const char* other,
                   const void* data, size_t size) {
  if (trace < 0) return;
  uint64_t head[6] = {kind, inode, offset, strlen(path), strlen(other), size};
  really_write(trace, head, sizeof head);
  really_write(trace, path, head[3]);
  really_write(trace, other, head[4]);
  if (size) really_write(trace, data, size);
}

void torture_arm(const char* folder, long at, int action, int value) {
  snprintf(root, sizeof root, "%s", folder);
  root_length = strlen(root);
  *counter = 0;
  armed_at = at;
  armed_action = action;
  armed_value = value;
}

void torture_trace(int fd) { trace = fd; }
long torture_count(void) { return *counter; }
void torture_mark(const char* text) { record(0, 0, 0, text, "", 0, 0); }

/* What is to be done with the call that begins: the action, where this is its turn. */
static int turn(void) {
  long number = __sync_fetch_and_add(counter, 1);
  int action = number == armed_at ? armed_action : NOTHING;
  if (armed_action == FAIL_FROM && armed_at >= 0 && number >= armed_at) action = FAIL;
  if (action == KILL_BEFORE) kill(getpid(), SIGKILL);
  if (action == SIGNAL) kill(getpid(), armed_value);
  if (action == FAIL) errno = armed_value;
  return action;
}

static void after(int action) {
  if (action == KILL_AFTER || action == KILL_WITHIN) kill(getpid(), SIGKILL);
}

/* A call on a path: disturbed, made and recorded. */
#define ON_PATH(kind, path, other, made)                   \
  if (!is_watched(path)) return made;                      \
  int action = turn();                                     \
  if (action == FAIL) return -1;                           \
  int result = made;                                       \
  if (result == 0) record(kind, 0, 0, path, other, 0, 0);  \
  after(action);                                           \
  return result;

static int opened(int folder, const char* path, int flags, mode_t mode) {
  REAL(int, "openat64", int, const char*, int, mode_t);
  char whole[PATH_MAX];
  if (!(flags & (O_CREAT | O_TRUNC))) return real(folder, path, flags, mode);
  absolute(folder, path, whole);
  if (!is_watched(whole)) return real(folder, path, flags, mode);
  int action = turn();
  if (action == FAIL) return -1;
  struct stat found;
  int is_new = fstatat(folder, path, &found, AT_SYMLINK_NOFOLLOW) != 0, kept = errno;
  errno = kept;
  int fd = real(folder, path, flags, mode);
  if (fd >= 0 && !fstat(fd, &found)) {
    if (is_new) record(OPEN, found.st_ino, 0, whole, "", 0, 0);
    if (!is_new && flags & O_TRUNC) record(TRUNCATE, found.st_ino, 0, whole, "", 0, 0);
  }
  after(action);
  return fd;
}

#define OPENED(name)                         \
  int name(const char* path, int flags, ...) { \
    va_list rest;                            \
    va_start(rest, flags);                   \
    mode_t mode = va_arg(rest, mode_t);      \
    va_end(rest);                            \
    return opened(AT_FDCWD, path, flags, mode); \
  }
#define OPENED_AT(name)                                  \
  int name(int folder, const char* path, int flags, ...) { \
    va_list rest;                                        \
    va_start(rest, flags);                               \
    mode_t mode = va_arg(rest, mode_t);                  \
    va_end(rest);                                        \
    return opened(folder, path, flags, mode);            \
  }
OPENED(open)
OPENED(open64)
OPENED_AT(openat)
OPENED_AT(openat64)

ssize_t write(int fd, const void* data, size_t size) {
  char path[PATH_MAX];
  if (!root_length || fd == trace || !path_of_descriptor(fd, path) || !is_watched(path))
    return really_write(fd, data, size);
  int action = turn();
  if (action == FAIL) return -1;
  if ((action == SHORT || action == KILL_WITHIN) && size > 1) size /= 2;
  struct stat found;
  fstat(fd, &found);
  off_t at = fcntl(fd, F_GETFL) & O_APPEND ? found.st_size : lseek(fd, 0, SEEK_CUR);
  ssize_t written = really_write(fd, data, size);
  if (written > 0) record(WRITE, found.st_ino, at, path, "", data, written);
  after(action);
  return written;
}

/* Python copies by it in pieces that a trace would not see: it falls back to reading and writing. */
ssize_t sendfile(int out, int in, off_t* at, size_t size) { return errno = ENOTSOCK, -1; }
ssize_t sendfile64(int out, int in, off64_t* at, size_t size) { return errno = ENOTSOCK, -1; }

static int sized(int fd, off_t size) {
  REAL(int, "ftruncate64", int, off_t);
  char path[PATH_MAX];
  if (!root_length || !path_of_descriptor(fd, path) || !is_watched(path)) return real(fd, size);
  int action = turn();
  if (action == FAIL) return -1;
  struct stat found;
  fstat(fd, &found);
  int result = real(fd, size);
  if (!result) record(TRUNCATE, found.st_ino, size, path, "", 0, 0);
  after(action);
  return result;
}
int ftruncate(int fd, off_t size) { return sized(fd, size); }
int ftruncate64(int fd, off64_t size) { return sized(fd, size); }

static int synced(int fd, const char* name) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  char path[PATH_MAX];
  if (!root_length || !path_of_descriptor(fd, path) || !is_watched(path)) return real(fd);
  int action = turn();
  if (action == FAIL) return -1;
  struct stat found;
  fstat(fd, &found);
  int result = real(fd);
  if (!result) record(SYNC, found.st_ino, S_ISDIR(found.st_mode), path, "", 0, 0);
  after(action);
  return result;
}
int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }

static int renamed(int from, const char* old, int to, const char* path) {
  REAL(int, "renameat", int, const char*, int, const char*);
  char first[PATH_MAX], second[PATH_MAX];
  absolute(from, old, first);
  absolute(to, path, second);
  ON_PATH(RENAME, first, second, real(from, old, to, path))
}
int rename(const char* old, const char* path) { return renamed(AT_FDCWD, old, AT_FDCWD, path); }
int renameat(int a, const char* old, int b, const char* path) { return renamed(a, old, b, path); }

static int linked(int from, const char* old, int to, const char* path, int flags) {
  REAL(int, "linkat", int, const char*, int, const char*, int);
  char first[PATH_MAX], second[PATH_MAX];
  absolute(from, old, first);
  absolute(to, path, second);
  ON_PATH(LINK, first, second, real(from, old, to, path, flags))
}
int link(const char* old, const char* path) { return linked(AT_FDCWD, old, AT_FDCWD, path, 0); }
int linkat(int a, const char* old, int b, const char* path, int flags) {
  return linked(a, old, b, path, flags);
}

static int made(int folder, const char* path, mode_t mode) {
  REAL(int, "mkdirat", int, const char*, mode_t);
  char whole[PATH_MAX];
  absolute(folder, path, whole);
  ON_PATH(MKDIR, whole, "", real(folder, path, mode))
}
int mkdir(const char* path, mode_t mode) { return made(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char* path, mode_t mode) { return made(folder, path, mode); }

static int removed(int folder, const char* path, int flags) {
  REAL(int, "unlinkat", int, const char*, int);
  char whole[PATH_MAX];
  absolute(folder, path, whole);
  ON_PATH(UNLINK, whole, "", real(folder, path, flags))
}
int unlink(const char* path) { return removed(AT_FDCWD, path, 0); }
int rmdir(const char* path) { return removed(AT_FDCWD, path, AT_REMOVEDIR); }
int unlinkat(int folder, const char* path, int flags) { return removed(folder, path, flags); }

int chmod(const char* path, mode_t mode) {
  REAL(int, "chmod", const char*, mode_t);
  char whole[PATH_MAX];
  absolute(AT_FDCWD, path, whole);
  ON_PATH(MODE, whole, "", real(path, mode))
}
