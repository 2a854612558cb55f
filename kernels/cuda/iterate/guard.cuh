// The next states: F[t] + A[t] d[t-1], or a proposal, with F where that is not finite or out of reach; and the pin.

#pragma once

#include "iterate/rows.cuh"

namespace recsolve {

// What a step is made of: F alone, a proposal, F and a product that is not taken in rows that are cut, F and A and d.
enum Made { OF_VALUES, OF_PROPOSAL, OF_PRODUCT, OF_MATRIX };

// Python reads this description and fills such a structure: fields are 64 bits wide, or views.
struct Guard {
    long long steps, sequences, width, components;
    long long sizes[AXES];
    long long parts, by_time;
    double reach;                            // in units of the largest number known of a sequence
    long long leading, front, cut;           // addresses of bytes (T, *batch); 0: no row is
    long long known, initial, first, solved; // addresses (*batch); known == 0: the larger one of the next two
    long long reached;                       // address (*batch): what is known now
    View states, values, given, matrix, out;
};

template <int MADE, int K, class S, bool UNIT> __global__ void __launch_bounds__(ROW_THREADS) guard_rows(const Guard p) {
    const Row row(p);
    if (!row.exists) return;
    const auto of = [&](long long numbers) { return address<const S>(numbers)[row.sequence]; };
    const auto is = [&](long long bytes) { return bytes && *row.at<const unsigned char>(bytes); };
    const S known = larger(of(p.solved), p.known ? of(p.known) : larger(of(p.initial), of(p.first)));
    if (row.step == 0 && row.part == 0) address<S>(p.reached)[row.sequence] = known;
    const S reach = static_cast<S>(p.reach) * known;
    const bool leading = is(p.leading), plain = is(p.front) || MADE == OF_VALUES, cut = MADE > OF_PROPOSAL && is(p.cut);
    const S *f = row.in<const S>(p.values), *h = row.in<const S>(p.states), *x = row.in<const S>(p.given);
    const S* A = row.in<const S>(p.matrix);
    if (MADE == OF_MATRIX) x -= p.given.time;
    S* out = row.in<S>(p.out);
    for (long long entry = row.part; entry < p.width; entry += row.parts) {
        const Spot<UNIT> spot(p, entry);
        S d[K];
        if (MADE == OF_MATRIX && !leading && !plain && !cut) {
#pragma unroll
            for (int j = 0; j < K; ++j) d[j] = x[spot.in(p.given) + j * p.given.row];
        }
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const S value = f[spot.in(p.values) + i * p.values.row];
            S next = value;
            if (leading) {
                next = h[spot.in(p.states) + i * p.states.row];
            } else if (!plain) {
                S moved = S(0);
                if (MADE == OF_PROPOSAL || (MADE == OF_PRODUCT && !cut)) moved = x[spot.in(p.given) + i * p.given.row];
                if (MADE == OF_MATRIX && !cut) {
#pragma unroll
                    for (int j = 0; j < K; ++j) {
                        const S product = A[spot.in(p.matrix) + i * p.matrix.row + j * p.matrix.column] * d[j];
                        moved = j ? moved + product : product;
                    }
                }
                if (MADE != OF_PROPOSAL) moved = value + moved;
                if (finite(moved) && size_of(moved) <= reach) next = moved;
            }
            out[spot.in(p.out) + i * p.out.row] = next;
        }
    }
}

}  // namespace recsolve
