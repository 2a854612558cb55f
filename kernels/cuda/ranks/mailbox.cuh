// Messages between devices that write to each other's memory: each has a box, to which all put their rows of a message.
//
// A box holds two messages, by turns. What a rank writes to one that it has written to before has been read: it has seen
// the message between, and nobody sends that before he has taken the rows of the one before it out.

#pragma once

#include "ranks/message.cuh"

namespace recsolve {

constexpr int PEERS = 16;     // ranks, at most
constexpr int ROOM = 65536;   // bytes of a box for a row of a message: a flag, then the row
constexpr int FLAG = 128;     // bytes that a flag has for itself
constexpr int LOOKS = 64;     // at a flag, between two at the host's word and the clock
constexpr int GONE = 0;       // the flag of a rank that has left without having seen all others; of none that has sent

struct Mail {
    long long rank, number;           // of the sender; of the message, from 1
    long long begins;                 // where in a box the message begins, in bytes
    long long rows, row;              // where rows go, one after the other, and the bytes of each
    long long told, told_row, seen;   // where their first bytes go on the host, how many of each, and a word that they came
    long long given_up, patience;     // a word of the host: whether it waits no more; nanoseconds after which nobody does
    long long boxes[PEERS];           // of all ranks
    long long words, slots;
    long long word[WORDS];
    long long from[SLOTS], at[SLOTS], bytes[SLOTS];
};

__device__ inline unsigned long long* word_at(long long place) {
    return reinterpret_cast<unsigned long long*>(place);
}

// Returns whether a flag has come to the number of a message before the host gives up, or time is over. The host may wait
// for the device meanwhile, and then only the clock ends it.
__device__ inline bool has_come(long long flag, const Mail& p) {
    long long began = clock_now();
    for (int looks = 1; observe_afar(word_at(flag)) != static_cast<unsigned long long>(p.number); ++looks) {
        if (looks % LOOKS == 0 && (observe_afar(word_at(p.given_up)) || clock_now() - began > p.patience)) return false;
        pause();
    }
    return true;
}

// A block for each rank puts the own row into its box, and then takes its row out of the own one.
template <class Wide> __global__ void __launch_bounds__(256) exchange_rows(const Mail p) {
    constexpr int COUNT = AT_ONCE / sizeof(Wide);
    const long long other = blockIdx.x, thread = threadIdx.x, threads = blockDim.x;
    const long long there = p.boxes[other] + p.begins + p.rank * ROOM;
    const long long here = p.boxes[p.rank] + p.begins + other * ROOM;

    write_message<Wide>(p, there + FLAG, 0, thread, threads);
    __syncthreads();
    if (thread == 0) publish_afar(word_at(there), p.number);

    const bool came = thread == 0 && has_come(here, p);
    if (!__syncthreads_or(came)) {
        if (thread == 0) publish_afar(word_at(there), GONE);  // who comes later finds nobody
        return;
    }
    const Wide* row = address<const Wide>(here + FLAG);
    Wide* out = address<Wide>(p.rows + other * p.row);
    for (long long i = thread; i < p.row / AT_ONCE; i += threads) copy<COUNT>(out + i * COUNT, row + i * COUNT);
    const long long* first = address<const long long>(here + FLAG);
    long long* told = address<long long>(p.told + other * p.told_row);
    for (long long i = thread; i < p.told_row / 8; i += threads) told[i] = first[i];
    __syncthreads();
    if (thread == 0) publish_afar(word_at(p.seen) + other, p.number);
}

}  // namespace recsolve
