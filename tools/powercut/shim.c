/* A disk that forgets: loaded before libc into a process, it keeps a shadow of what was synced.
 *
 * For every regular file under $TENURE_DISK, `fsync` and `fdatasync` copy what was written since the last one to
 * $TENURE_SHADOW/files/<inode>-<generation>, before they return; `fsync` of a directory writes down its names. So the
 * shadow holds everything that the process may call durable, and little else. A power cut is SIGKILL, then
 * `tools.powercut.cut`, which builds the disk anew from shadow and page cache.
 *
 * While $TENURE_SHADOW/full exists, writes fail with ENOSPC (the first of them in the middle); while
 * $TENURE_SHADOW/broken exists, syncs fail with EIO, and what they were to cover never reaches the disk unless it is
 * written again: the kernel calls such pages clean. While $TENURE_SHADOW/lies exists, syncs do nothing and say yes.
 *
 * Not seen: mmap (SQLite's -shm, which is rebuilt), io_uring, copy_file_range.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 4096

struct file {
  char key[64];
  off_t low, high; /* written since the last sync */
  int whole;       /* not synced by this process yet: a sync also covers what an earlier one wrote */
};

static const char *disk, *shadow;
static struct file files[FILES];
static int count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_fallocate)(int, int, off_t, off_t);
static int (*real_posix_fallocate)(int, off_t, off_t);

__attribute__((constructor)) static void begin(void) {
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
  real_writev = dlsym(RTLD_NEXT, "writev");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
  real_fsync = dlsym(RTLD_NEXT, "fsync");
  real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
  real_fallocate = dlsym(RTLD_NEXT, "fallocate64");
  real_posix_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
  disk = getenv("TENURE_DISK");
  shadow = getenv("TENURE_SHADOW");
}

static void fail(const char *what) { /* a shadow that cannot be kept would prove nothing */
  dprintf(2, "powercut shim: %s: %s\n", what, strerror(errno));
  abort();
}

static int path_of(int fd, char *path) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, PATH_MAX - 1);
  if (size < 0) return 0;
  path[size] = 0;
  size_t root = strlen(disk);
  return !strncmp(path, disk, root) && (path[root] == '/' || !path[root]);
}

static int ours(int fd) {
  char path[PATH_MAX]; /* looked at anew each time: libc closes descriptors, and uses their numbers again, unseen */
  struct stat about;
  if (!disk || !shadow || fstat(fd, &about)) return 0;
  return (S_ISREG(about.st_mode) || S_ISDIR(about.st_mode)) && path_of(fd, path);
}

static void key_of(int fd, char *key) {
  struct stat about;
  int generation = 0;
  if (fstat(fd, &about)) fail("fstat");
  ioctl(fd, FS_IOC_GETVERSION, &generation); /* where there is none, it stays 0 */
  snprintf(key, 64, "%llu-%u", (unsigned long long)about.st_ino, (unsigned)generation);
}

static int triggered(const char *name) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", shadow, name);
  return !access(path, F_OK);
}

static struct file *file_of(int fd) { /* with the lock held */
  char key[64];
  key_of(fd, key);
  for (int i = 0; i < count; i++)
    if (!strcmp(files[i].key, key)) return &files[i];
  if (count == FILES) {
    errno = ENOSPC;
    fail("too many files");
  }
  struct file *new = &files[count++];
  strcpy(new->key, key);
  new->whole = 1;
  new->low = new->high = 0;
  return new;
}

static void wrote(int fd, off_t at, off_t size) {
  if (size <= 0) return;
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd);
  if (file->high == file->low) file->low = at, file->high = at + size;
  if (at < file->low) file->low = at;
  if (at + size > file->high) file->high = at + size;
  pthread_mutex_unlock(&lock);
}

static size_t room(size_t size) { return triggered("full") ? size / 2 : size; }

ssize_t write(int fd, const void *data, size_t size) {
  if (!real_write) begin(); /* another library's constructor was first */
  if (!ours(fd)) return real_write(fd, data, size);
  size_t some = room(size);
  if (some < size && triggered("was-full")) return errno = ENOSPC, -1;
  if (some < size) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/was-full", shadow);
    close(open(path, O_CREAT | O_WRONLY, 0600));
  }
  ssize_t done = real_write(fd, data, some);
  if (done > 0) wrote(fd, lseek(fd, 0, SEEK_CUR) - done, done);
  return done;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) {
  if (!ours(fd)) return real_pwrite(fd, data, size, at);
  if (triggered("full")) return errno = ENOSPC, -1;
  ssize_t done = real_pwrite(fd, data, size, at);
  wrote(fd, at, done);
  return done;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite64(fd, data, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int number) {
  if (!ours(fd)) return real_writev(fd, parts, number);
  if (triggered("full")) return errno = ENOSPC, -1;
  ssize_t done = real_writev(fd, parts, number);
  if (done > 0) wrote(fd, lseek(fd, 0, SEEK_CUR) - done, done);
  return done;
}

int ftruncate64(int fd, off_t size) {
  struct stat before;
  if (!ours(fd) || fstat(fd, &before)) return real_ftruncate(fd, size);
  int failed = real_ftruncate(fd, size);
  if (!failed && size < before.st_size) wrote(fd, size, before.st_size - size);
  return failed;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int fallocate64(int fd, int mode, off_t at, off_t size) {
  if (!ours(fd)) return real_fallocate(fd, mode, at, size);
  if (triggered("full")) return errno = ENOSPC, -1;
  int failed = real_fallocate(fd, mode, at, size);
  if (!failed && mode) wrote(fd, at, size); /* punched or zeroed */
  return failed;
}
int fallocate(int fd, int mode, off_t at, off_t size) { return fallocate64(fd, mode, at, size); }
int posix_fallocate64(int fd, off_t at, off_t size) {
  return ours(fd) && triggered("full") ? ENOSPC : real_posix_fallocate(fd, at, size);
}
int posix_fallocate(int fd, off_t at, off_t size) { return posix_fallocate64(fd, at, size); }

static void forgotten(const char *key, off_t *low, off_t *high, int note) { /* what a failed sync was to cover */
  char path[PATH_MAX];
  long long from = 0, to = 0;
  snprintf(path, sizeof path, "%s/clean-%s", shadow, key);
  FILE *file = fopen(path, "r");
  if (file && fscanf(file, "%lld %lld", &from, &to) != 2) fail(path);
  if (file) fclose(file);
  if (note && *high > *low) {
    if (to == from || *low < from) from = *low;
    if (*high > to) to = *high;
    if (!(file = fopen(path, "w")) || fprintf(file, "%lld %lld", from, to) < 0 || fclose(file)) fail(path);
  }
  *low = from, *high = to;
}

static void copy(int from, const char *key, off_t low, off_t high) {
  char path[PATH_MAX], page[1 << 16];
  struct stat about;
  snprintf(path, sizeof path, "%s/files/%s", shadow, key);
  int to = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  if (to < 0 || fstat(from, &about)) fail(path);
  if (high > about.st_size) high = about.st_size;
  if (real_ftruncate(to, about.st_size)) fail(path);
  while (low < high) {
    size_t want = high - low < (off_t)sizeof page ? (size_t)(high - low) : sizeof page;
    ssize_t got = pread(from, page, want, low);
    if (got <= 0 || real_pwrite(to, page, got, low) != got) fail(path);
    low += got;
  }
  close(to);
}

static void copy_file(int fd, struct file taken) {
  int from = fd, flags = fcntl(fd, F_GETFL);
  if ((flags & O_ACCMODE) == O_WRONLY) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if ((from = open(link, O_RDONLY | O_CLOEXEC)) < 0) fail(link);
  }
  off_t low = 0, high = 0;
  forgotten(taken.key, &low, &high, 0);
  if (taken.whole && high > low) copy(from, taken.key, 0, low), copy(from, taken.key, high, LONG_MAX);
  else if (taken.whole) copy(from, taken.key, 0, LONG_MAX);
  copy(from, taken.key, taken.low, taken.high);
  if (from != fd) close(from);
}

static void copy_names(int fd) { /* one line an entry: key, or "dir", a tab, the name */
  char path[PATH_MAX], target[PATH_MAX], partial[PATH_MAX];
  if (!path_of(fd, path)) return;
  snprintf(target, sizeof target, "%s/names/", shadow);
  char *end = target + strlen(target);
  if (!path[strlen(disk)]) end = stpcpy(end, "root");
  for (const char *at = path + strlen(disk); *at; at++) *end++ = *at == '/' ? '%' : *at;
  *end = 0;
  snprintf(partial, sizeof partial, "%s.part%lx", target, (unsigned long)pthread_self());
  FILE *list = fopen(partial, "w");
  DIR *entries = opendir(path);
  if (!list || !entries) fail(partial);
  for (struct dirent *entry; (entry = readdir(entries));) {
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    int child = openat(dirfd(entries), entry->d_name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (child < 0) continue; /* a socket, or just removed */
    char key[64] = "dir";
    struct stat about;
    if (!fstat(child, &about) && S_ISREG(about.st_mode)) key_of(child, key);
    fprintf(list, "%s\t%s\n", key, entry->d_name);
    close(child);
  }
  closedir(entries);
  if (fclose(list) || rename(partial, target)) fail(target);
}

static int synced(int fd, int (*real)(int)) {
  struct stat about;
  if (triggered("lies")) return 0;
  if (fstat(fd, &about)) return -1;
  if (S_ISDIR(about.st_mode)) {
    if (triggered("broken")) return errno = EIO, -1;
    int failed = real(fd);
    if (!failed) copy_names(fd);
    return failed;
  }
  pthread_mutex_lock(&lock);
  struct file *file = file_of(fd);
  struct file taken = *file;
  file->low = file->high = 0;
  file->whole = 0;
  pthread_mutex_unlock(&lock);
  if (triggered("broken")) {
    forgotten(taken.key, &taken.low, &taken.high, 1);
    return errno = EIO, -1;
  }
  int failed = real(fd);
  if (!failed) copy_file(fd, taken);
  return failed;
}

int fsync(int fd) { return ours(fd) ? synced(fd, real_fsync) : real_fsync(fd); }
int fdatasync(int fd) { return ours(fd) ? synced(fd, real_fdatasync) : real_fdatasync(fd); }
