/* A program whose memory an allocator decides on: "mixed" has threads and objects of mixed lifetimes, and fragments the
 * malloc of glibc; "steady" takes its memory once and keeps it, so that no allocator can gain anything.
 *
 * Its clock is its work, not the time: after each part it prints a line, and waits for one. Who measures it then finds
 * it in the same state on any machine, however busy that is.
 *
 * GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    THREADS = 24,        /* each has a burst of its own in a round, as the requests of a web server */
    BURST = 12 << 20,    /* bytes of a burst */
    LARGEST = 4096,      /* bytes of an object */
    SURVIVORS = 100,     /* one object of so many outlives its burst */
    KEPT = 16384,        /* survivors at a time; the next one frees the oldest */
    PARTS = 12,          /* of the work, each a turn of all threads */
    STEADY = 96 << 20    /* bytes of the other workload */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turned = PTHREAD_COND_INITIALIZER;
static int turn = -1; /* whose it is */
static void *kept[KEPT];
static unsigned long oldest;

static unsigned next(unsigned *seed) {
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void *take(size_t size) {
    void *memory = malloc(size);
    if (!memory) exit(3);
    return memset(memory, 1, size);
}

static void burst(unsigned *seed) {
    static void *objects[BURST / 64];
    size_t taken = 0, count = 0, i;
    while (taken < BURST) {
        size_t size = 64 + next(seed) % (next(seed) % 4 ? 512 : LARGEST);
        objects[count++] = take(size);
        taken += size;
    }
    for (i = 0; i < count; i++) {
        if (next(seed) % SURVIVORS == 0) {
            void **place = &kept[oldest++ % KEPT];
            free(*place); /* what another thread took */
            *place = objects[i];
        } else {
            free(objects[i]);
        }
    }
}

static void *work(void *argument) {
    int self = (int)(size_t)argument, part;
    unsigned seed = (unsigned)self + 1;
    for (part = 0; part <= PARTS; part++) { /* the last one never comes: none ends early */
        pthread_mutex_lock(&lock);
        while (turn != self) pthread_cond_wait(&turned, &lock);
        burst(&seed);
        turn = self + 1;
        pthread_cond_broadcast(&turned);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void measured(int part) {
    printf("%d\n", part);
    fflush(stdout);
    if (getchar() == EOF) exit(4);
}

static void mixed(void) {
    pthread_t threads[THREADS];
    size_t i;
    int part;
    for (i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, work, (void *)i)) exit(5);
    }
    for (part = 1; part <= PARTS; part++) {
        pthread_mutex_lock(&lock);
        turn = 0;
        pthread_cond_broadcast(&turned);
        while (turn != THREADS) pthread_cond_wait(&turned, &lock);
        pthread_mutex_unlock(&lock);
        measured(part);
    }
}

static void steady(void) {
    int part;
    char *all = take(STEADY);
    for (part = 1; part <= PARTS; part++) {
        free(take(1 << 16));
        measured(part);
    }
    free(all);
}

int main(int count, char **arguments) {
    if (count == 2 && !strcmp(arguments[1], "mixed")) mixed();
    else if (count == 2 && !strcmp(arguments[1], "steady")) steady();
    else return 2;
    return 0;
}
