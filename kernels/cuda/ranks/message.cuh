// A message to other ranks: a few words that the host knows, and arrays one after the other, put together in one launch.

#pragma once

#include "common/numbers.cuh"
#include "common/view.cuh"

namespace recsolve {

constexpr int WORDS = 20;     // of the host, in a launch
constexpr int SLOTS = 24;     // arrays, in a launch
constexpr int AT_ONCE = 16;   // bytes that are copied at once where they are aligned; arrays begin at multiples of it

// Python reads this description and fills such a structure: fields are 64 bits wide.
struct Message {
    long long out, words_at;  // address of the message; where words begin in it, in bytes
    long long blocks;
    long long words, slots;  // how many there are
    long long word[WORDS];
    long long from[SLOTS], at[SLOTS], bytes[SLOTS];  // of arrays: their addresses, their places, their bytes
};

// Writes words and arrays to a message, as `threads` threads together; P has the fields of a Message from `words` on.
template <class Wide, class P>
__device__ inline void write_message(const P& p, long long out, long long words_at, long long thread, long long threads) {
    constexpr int COUNT = AT_ONCE / sizeof(Wide);
    for (long long i = thread; i < p.words; i += threads) address<long long>(out + words_at)[i] = p.word[i];
    for (long long slot = 0; slot < p.slots; ++slot) {
        const long long from = p.from[slot], to = out + p.at[slot], bytes = p.bytes[slot];
        const long long whole = (from | to) % AT_ONCE ? 0 : bytes / AT_ONCE;
        for (long long i = thread; i < whole; i += threads) {
            copy<COUNT>(address<Wide>(to) + i * COUNT, address<const Wide>(from) + i * COUNT);
        }
        for (long long i = whole * AT_ONCE + thread; i < bytes; i += threads) {
            address<unsigned char>(to)[i] = address<const unsigned char>(from)[i];
        }
    }
}

template <class Wide> __global__ void __launch_bounds__(256) pack_message(const Message p) {
    const long long thread = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    write_message<Wide>(p, p.out, p.words_at, thread, p.blocks * blockDim.x);
}

// Sums over messages that are `apart` bytes from each other, added up in the order of ranks.
struct Sum {
    long long count, ranks, apart;
    long long from, to;  // addresses of the first message and of the sums
};

template <class T> __global__ void __launch_bounds__(256) sum_messages(const Sum p) {
    const long long i = static_cast<long long>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= p.count) return;
    T sum = address<const T>(p.from)[i];
    for (long long rank = 1; rank < p.ranks; ++rank) sum = sum + address<const T>(p.from + rank * p.apart)[i];
    address<T>(p.to)[i] = sum;
}

}  // namespace recsolve
