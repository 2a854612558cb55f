// A sweep of quasi-Newton over a cell whose mixings are products with its state: all that is elementwise in it.
//
// With P[t] = W h[t] for all t at once, F[t] = f(h[t-1], P[t-1], u[t]). `sweep_stage` gives the residual r = F - h, the
// k x k block A of each unit, and a report; a scan makes d[t] = A[t] d[t-1] + r[t] of them; `sweep_update` adds d to h.
// That is F[t] + A[t] d[t-1], and the next P is the old one plus W d.

#pragma once

#include "stage/each.cuh"

namespace recsolve {

// What a stage reports, as int, each the largest of all threads: REMAINING counts the steps from the first one that
// fails its test on (0: none does); WORST and SIZE hold the bits of floats, the largest |r| and |F| that are finite.
enum Report { REMAINING, NOT_FINITE_F, WORST_R, SIZE_F, REPORTED };

// Python reads this description and fills such a structure: fields are 64 bits wide, or views.
template <class Cell> struct Sweep {
    long long steps, lanes;
    long long sizes[AXES];  // of the axes of lanes, the innermost first
    long long chunks, blocks;
    double atol, rtol;  // |r| <= atol + rtol max(|h|, |F|)
    long long guess;    // whether all steps are cut from their past
    long long report;   // address
    View drives[at_least_one<Cell::DRIVES>];
    View constants[at_least_one<Cell::CONSTANTS>];
    View mixed[Cell::CALLS], initial_mixed[Cell::CALLS], restart_mixed[Cell::CALLS];
    View states, initial, restart;
    View residual, matrix;
    View cut;  // bytes: which steps are cut from their past; at == 0: none but the first
};

template <class T> struct Told {
    T worst = T(0), size = T(0);
    long long remaining = 0;
    bool not_finite = false;
};

// Where the numbers of a lane lie at the first time.
template <class Cell, class T> struct Places {
    const T *drives[at_least_one<Cell::DRIVES>], *mixed[Cell::CALLS], *states;
    T constants[at_least_one<Cell::CONSTANTS>];
    T *residual, *matrix;
    const unsigned char* cut;

    __device__ Places(const Sweep<Cell>& p, const Place& place) {
#pragma unroll
        for (int i = 0; i < Cell::DRIVES; ++i) drives[i] = place.in<const T>(p.drives[i]);
#pragma unroll
        for (int i = 0; i < Cell::CALLS; ++i) mixed[i] = place.in<const T>(p.mixed[i]);
#pragma unroll
        for (int i = 0; i < Cell::CONSTANTS; ++i) constants[i] = *place.in<const T>(p.constants[i]);
        states = place.in<const T>(p.states);
        residual = place.in<T>(p.residual);
        matrix = p.matrix.at ? place.in<T>(p.matrix) : nullptr;
        cut = p.cut.at ? place.in<const unsigned char>(p.cut) : nullptr;
    }

    // Reads the state and the products that step t starts from.
    __device__ __forceinline__ void before(const Sweep<Cell>& p, const Place& place, long long t, T* x, T* m) const {
        const bool restarts = cut && cut[t * p.cut.time];
        if (t > 0 && !restarts && !p.guess) {
#pragma unroll
            for (int i = 0; i < Cell::PARTS; ++i) x[i] = states[(t - 1) * p.states.time + i * p.states.row];
#pragma unroll
            for (int i = 0; i < Cell::CALLS; ++i) m[i] = mixed[i][(t - 1) * p.mixed[i].time];
        } else {
            const View& from = restarts ? p.restart : p.initial;
            const T* start = place.in<const T>(from);
#pragma unroll
            for (int i = 0; i < Cell::PARTS; ++i) x[i] = start[i * from.row];
#pragma unroll
            for (int i = 0; i < Cell::CALLS; ++i)
                m[i] = *place.in<const T>(restarts ? p.restart_mixed[i] : p.initial_mixed[i]);
        }
    }
};

// One number of a lane in a step: its residual, its block, and what there is to tell.
template <class Cell, class T, bool LINEAR>
__device__ __forceinline__ void sweep_step(const Sweep<Cell>& p, const Places<Cell, T>& places, const Place& place,
                                           long long t, Told<T>& told) {
    constexpr int K = Cell::PARTS;
    T x[K], h[K], u[at_least_one<Cell::DRIVES>], m[Cell::CALLS], y[K], A[K * K];
#pragma unroll
    for (int i = 0; i < Cell::DRIVES; ++i) u[i] = places.drives[i][t * p.drives[i].time];
#pragma unroll
    for (int i = 0; i < K; ++i) h[i] = places.states[t * p.states.time + i * p.states.row];
    places.before(p, place, t, x, m);
    if constexpr (LINEAR) {
        Cell::template linear<Full<T>>(x, u, m, places.constants, y, A);
#pragma unroll
        for (int i = 0; i < K * K; ++i)
            places.matrix[t * p.matrix.time + i / K * p.matrix.row + i % K * p.matrix.column] = A[i];
    } else {
        Cell::template step<Full<T>>(x, u, m, places.constants, y);
    }
    bool met = true;
#pragma unroll
    for (int i = 0; i < K; ++i) {
        const T r = y[i] - h[i], size = larger(size_of(h[i]), size_of(y[i]));
        places.residual[t * p.residual.time + i * p.residual.row] = r;
        met &= size_of(r) <= static_cast<T>(p.atol) + static_cast<T>(p.rtol) * size && finite(r);
        told.not_finite |= !finite(y[i]);
        if (finite(r)) told.worst = larger(told.worst, size_of(r));
        if (finite(y[i])) told.size = larger(told.size, size_of(y[i]));
    }
    if (!met && p.steps - t > told.remaining) told.remaining = p.steps - t;
}

// Takes what the threads of a block tell to the report.
template <class T> __device__ inline void tell(const Told<T>& told, int* block, int* report) {
    if (threadIdx.x < REPORTED) block[threadIdx.x] = 0;
    __syncthreads();
    const int own[REPORTED] = {static_cast<int>(told.remaining < 0x7fffffff ? told.remaining : 0x7fffffff),
                               told.not_finite, bits_of(static_cast<float>(told.worst)),
                               bits_of(static_cast<float>(told.size))};
#pragma unroll
    for (int i = 0; i < REPORTED; ++i) {
        if (own[i] > 0) atomicMax(block + i, own[i]);
    }
    __syncthreads();
    if (threadIdx.x < REPORTED && block[threadIdx.x] > 0) atomicMax(report + threadIdx.x, block[threadIdx.x]);
}

template <class Cell, class T, bool LINEAR>
__global__ void __launch_bounds__(THREADS, 2) sweep_stage(const Sweep<Cell> p) {
    const long long threads = p.blocks * blockDim.x;
    const long long own = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
    Told<T> told;
    for (long long unit = own; unit < p.lanes * p.chunks; unit += threads) {
        const long long first = unit / p.lanes, lane = unit - first * p.lanes;
        const Place place(p.sizes, lane);
        const Places<Cell, T> places(p, place);
        for (long long t = first; t < p.steps; t += p.chunks) {
            sweep_step<Cell, T, LINEAR>(p, places, place, t, told);
        }
    }
    tell(told, reinterpret_cast<int*>(shared_memory()), address<int>(p.report));
}

// Contiguous numbers: h <- h + d where that is finite and in reach, and the plain step h + r elsewhere, which d then
// holds. Nothing is moved once all steps have passed the test: what is returned is what has been tested.
template <class T> struct Update {
    long long states, correction, residual, numbers, blocks;
    long long report, known;  // addresses; the report of the guess
    double reach;             // in units of the largest |F| of the guess
};

template <class T> __global__ void __launch_bounds__(THREADS) sweep_update(const Update<T> p) {
    if (address<const int>(p.report)[REMAINING] == 0) return;
    T *h = address<T>(p.states), *d = address<T>(p.correction);
    const T* r = address<const T>(p.residual);
    const T reach = static_cast<T>(p.reach) * larger(static_cast<T>(address<const float>(p.known)[SIZE_F]), T(1));
    const long long threads = p.blocks * blockDim.x;
#pragma unroll 4
    for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.numbers; i += threads) {
        const T moved = h[i] + d[i];
        if (finite(moved) && size_of(moved) <= reach) {
            h[i] = moved;
        } else {
            h[i] += r[i];
            d[i] = r[i];
        }
    }
}

}  // namespace recsolve
