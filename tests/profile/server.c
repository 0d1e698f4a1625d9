/* A server of two processes: one function keeps nearly all the memory, another one hardly any. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *kept[1010];

__attribute__((noinline)) void *allocates_most(void) {
  void *memory = malloc(20000);
  memset(memory, 1, 20000);
  return memory;
}

__attribute__((noinline)) void *allocates_little(void) {
  void *memory = malloc(1000);
  memset(memory, 1, 1000);
  return memory;
}

__attribute__((noinline)) void serve(void) {
  for (unsigned number = 0;; number++) {
    unsigned most = number % 1000, little = 1000 + number % 10;
    free(kept[most]);
    kept[most] = allocates_most();
    free(kept[little]);
    kept[little] = allocates_little();
    usleep(500);
  }
}

int main(void) {
  fork();
  serve();
  return 0;
}
