// The test of an iterate: r = F - h, and what is told of each row, from h and F, or from h alone: then F is evaluated
// in passing, with its Jacobian where that is asked for, and the states before the steps are read where they are.

#pragma once

#include "iterate/rows.cuh"

namespace recsolve {

// Python reads this description and fills such a structure: fields are 64 bits wide, or views.
struct Test {
    long long steps, sequences, width, components;  // width: numbers of a component in a row
    long long sizes[AXES];
    long long parts, by_time;  // threads of a row; whether the times of a sequence are nearer than sequences
    double atol, rtol, unit;
    long long lane;  // atol is multiplied with the largest of so many numbers (of all components), or unit; 0: with 1
    long long told, converged, worst, largest_states, largest_values;  // addresses of what is told of rows
    long long report;                                                  // address
    View states, values, residual;
};

template <class S, int AT_ONCE> __global__ void __launch_bounds__(ROW_THREADS, 2) test_rows(const Test p) {
    constexpr int N = Spot<AT_ONCE>::COUNT;
    const Row row(p);
    const S *h = row.in<const S>(p.states), *f = row.in<const S>(p.values);
    S* r = row.in<S>(p.residual);
    const S atol = static_cast<S>(p.atol), rtol = static_cast<S>(p.rtol);
    const long long lane = p.lane ? p.lane : p.width;
    Seen<S> seen;
    for (long long first = 0; first < p.width; first += lane) {
        const long long begin = first + row.part * N, last = row.exists ? first + lane : first;
        Pack<S, N> a, b, difference;
        S absolute = atol;
        if (p.lane) {
            S most = static_cast<S>(p.unit);
            for (int i = 0; i < p.components; ++i) {
                for (long long entry = begin; entry < last; entry += row.parts * N) {
                    const Spot<AT_ONCE> spot(p, entry);
                    a.load(h + spot.in(p.states) + i * p.states.row);
                    b.load(f + spot.in(p.values) + i * p.values.row);
#pragma unroll
                    for (int n = 0; n < N; ++n) most = greatest(most, greatest(size_of(a[n]), size_of(b[n])));
                }
            }
            absolute = atol * largest_of_row(row, most);
        }
        for (int i = 0; i < p.components; ++i) {
            for (long long entry = begin; entry < last; entry += row.parts * N) {
                const Spot<AT_ONCE> spot(p, entry);
                a.load(h + spot.in(p.states) + i * p.states.row);
                b.load(f + spot.in(p.values) + i * p.values.row);
#pragma unroll
                for (int n = 0; n < N; ++n) {
                    difference[n] = b[n] - a[n];
                    seen.add(a[n], b[n], difference[n], absolute, rtol);
                }
                difference.store(r + spot.in(p.residual) + i * p.residual.row);
            }
        }
    }
    seen.tell(p, row);
}

// As `Test`, for a function of a cell: its inputs begin with the components of the state, whose views are not used.
template <class Stage> struct Evaluation {
    long long steps, sequences, width, components;
    long long sizes[AXES];
    long long parts, by_time;
    double atol, rtol;
    long long lane;
    long long told, converged, worst, largest_states, largest_values;
    long long report;
    long long resets;  // address of bytes (T, *batch): steps that start from `restart`; 0: none
    View states, initial, restart, residual;
    View in[Stage::IN];
    View out[Stage::OUT];  // the components of F, and the entries of the Jacobian
};

template <class Stage, int K, class S, int AT_ONCE>
__global__ void __launch_bounds__(ROW_THREADS) evaluate_rows(const Evaluation<Stage> p) {
    constexpr int N = Spot<AT_ONCE>::COUNT, IN = Stage::IN, OUT = Stage::OUT;
    const Row row(p);
    const S atol = static_cast<S>(p.atol), rtol = static_cast<S>(p.rtol);
    Seen<S> seen;
    if (row.exists) {
        const bool restarts = p.resets && *row.at<const unsigned char>(p.resets), first = row.step == 0;
        const S* h = row.in<const S>(p.states);
        const S* before = first ? row.in<const S>(p.initial) : h - p.states.time;
        if (restarts) before = row.in<const S>(p.restart);
        const long long apart = restarts ? p.restart.row : first ? p.initial.row : p.states.row;
        const S* from[IN];
        S *to[OUT], *r = row.in<S>(p.residual);
#pragma unroll
        for (int i = K; i < IN; ++i) from[i] = row.in<const S>(p.in[i]);
#pragma unroll
        for (int i = 0; i < OUT; ++i) to[i] = row.in<S>(p.out[i]);
        for (long long entry = row.part * N; entry < p.width; entry += row.parts * N) {
            const Spot<AT_ONCE> spot(p, entry);
            const long long place = restarts ? spot.in(p.restart) : first ? spot.in(p.initial) : spot.in(p.states);
            Pack<S, N> a[IN], b[OUT], x[K];
#pragma unroll
            for (int i = 0; i < K; ++i) {
                a[i].load(before + place + i * apart);
                x[i].load(h + spot.in(p.states) + i * p.states.row);
            }
#pragma unroll
            for (int i = K; i < IN; ++i) a[i].load(from[i] + spot.in(p.in[i]));
#pragma unroll
            for (int n = 0; n < N; ++n) {
                S given[IN], found[OUT];
#pragma unroll
                for (int i = 0; i < IN; ++i) given[i] = a[i][n];
                Stage::template run<Full<S>>(given, found);
#pragma unroll
                for (int i = 0; i < OUT; ++i) b[i][n] = found[i];
#pragma unroll
                for (int i = 0; i < K; ++i) {
                    const S difference = found[i] - x[i][n];
                    seen.add(x[i][n], found[i], difference, atol, rtol);
                    x[i][n] = difference;
                }
            }
#pragma unroll
            for (int i = 0; i < OUT; ++i) b[i].store(to[i] + spot.in(p.out[i]));
#pragma unroll
            for (int i = 0; i < K; ++i) x[i].store(r + spot.in(p.residual) + i * p.residual.row);
        }
    }
    seen.tell(p, row);
}

}  // namespace recsolve
