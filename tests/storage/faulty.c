// A disk that fails when it is told to: loaded before libc (LD_PRELOAD), driven from Python through ctypes.
// Python, Orbax and TensorStore all write through these functions.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE, SYNC, RENAME, OPEN, KINDS };

static char below[PATH_MAX];
static atomic_int seen[KINDS];
static int first[KINDS], last[KINDS], error_number;

// Calls number `from` to `to` of a kind, counted from 1, fail below the folder; `from` 0 is none. Counts begin anew.
void faulty(const char *folder, int kind, int from, int to, int error) {
  snprintf(below, sizeof below, "%s/", folder);
  for (int i = 0; i < KINDS; i++) first[i] = last[i] = 0, atomic_store(&seen[i], 0);
  first[kind] = from, last[kind] = to, error_number = error;
}

int faulty_seen(int kind) { return atomic_load(&seen[kind]); }

static int fails(int kind, const char *path) {
  if (!below[0] || strncmp(path, below, strlen(below))) return 0;
  int number = atomic_fetch_add(&seen[kind], 1) + 1;
  if (!first[kind] || number < first[kind] || number > last[kind]) return 0;
  errno = error_number;
  return 1;
}

static int fails_at(int kind, int descriptor) {
  char link[64], path[PATH_MAX];
  if (!below[0]) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = 0;
  return fails(kind, path);
}

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int d, const void *b, size_t n) { return fails_at(WRITE, d) ? -1 : REAL(write)(d, b, n); }
ssize_t writev(int d, const struct iovec *v, int n) { return fails_at(WRITE, d) ? -1 : REAL(writev)(d, v, n); }
ssize_t pwrite(int d, const void *b, size_t n, off_t o) { return fails_at(WRITE, d) ? -1 : REAL(pwrite)(d, b, n, o); }
ssize_t pwrite64(int d, const void *b, size_t n, off64_t o) { return fails_at(WRITE, d) ? -1 : REAL(pwrite64)(d, b, n, o); }
ssize_t pwritev(int d, const struct iovec *v, int n, off_t o) { return fails_at(WRITE, d) ? -1 : REAL(pwritev)(d, v, n, o); }
int fsync(int d) { return fails_at(SYNC, d) ? -1 : REAL(fsync)(d); }
int fdatasync(int d) { return fails_at(SYNC, d) ? -1 : REAL(fdatasync)(d); }
int rename(const char *a, const char *b) { return fails(RENAME, a) ? -1 : REAL(rename)(a, b); }

#define OPENS(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))
#define MODE(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *p, int flags, ...) { MODE(flags) return OPENS(flags) && fails(OPEN, p) ? -1 : REAL(open)(p, flags, mode); }
int open64(const char *p, int flags, ...) { MODE(flags) return OPENS(flags) && fails(OPEN, p) ? -1 : REAL(open64)(p, flags, mode); }
int openat(int d, const char *p, int flags, ...) {
  MODE(flags) return OPENS(flags) && fails(OPEN, p) ? -1 : REAL(openat)(d, p, flags, mode);
}
