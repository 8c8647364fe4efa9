#include "random.h"

uint64_t stress_random(uint64_t *state) {
    uint64_t bits = (*state += 0x9e3779b97f4a7c15);
    bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9;
    bits = (bits ^ bits >> 27) * 0x94d049bb133111eb;
    return bits ^ bits >> 31;
}

uint32_t stress_random_below(uint64_t *state, uint32_t bound) {
    return (uint32_t)(stress_random(state) % bound);
}
