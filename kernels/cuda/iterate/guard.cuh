// The next states: F[t] + A[t] d[t-1], or a proposal, with F where that is not finite or out of reach; and the pin.

#pragma once

#include "iterate/rows.cuh"

namespace recsolve {

// What a step is made of: F alone, a proposal, F and a product that is not taken in rows that are cut, or F and d, with
// A a number for each of its own, or a block for each unit.
enum Made { OF_VALUES, OF_PROPOSAL, OF_PRODUCT, OF_DIAGONAL, OF_BLOCK };

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

template <int MADE, int K, class S, int AT_ONCE>
__global__ void __launch_bounds__(ROW_THREADS) guard_rows(const Guard p) {
    constexpr int N = Spot<AT_ONCE>::COUNT;
    constexpr bool SCANNED = MADE >= OF_DIAGONAL;
    using Numbers = Pack<S, N>;
    const Row row(p);
    if (!row.exists) return;
    const auto of = [&](long long numbers) { return address<const S>(numbers)[row.sequence]; };
    const auto is = [&](long long bytes) { return bytes && *row.at<const unsigned char>(bytes); };
    const S known = larger(of(p.solved), p.known ? of(p.known) : larger(of(p.initial), of(p.first)));
    if (row.step == 0 && row.part == 0) address<S>(p.reached)[row.sequence] = known;
    const S reach = static_cast<S>(p.reach) * known;
    const bool leading = is(p.leading), plain = is(p.front) || MADE == OF_VALUES, cut = MADE > OF_PROPOSAL && is(p.cut);
    const bool moves = !leading && !plain, carried = MADE == OF_PROPOSAL || !cut;
    const S *f = row.in<const S>(leading ? p.states : p.values), *x = row.in<const S>(p.given);
    const S* A = row.in<const S>(p.matrix);
    if (SCANNED) x -= p.given.time;
    S* out = row.in<S>(p.out);
    for (long long entry = row.part * N; entry < p.width; entry += row.parts * N) {
        const Spot<AT_ONCE> spot(p, entry);
        const long long place = leading ? spot.in(p.states) : spot.in(p.values);
        const long long apart = leading ? p.states.row : p.values.row;
        Numbers next[K], d[K];
#pragma unroll
        for (int i = 0; i < K; ++i) next[i].load(f + place + i * apart);
        if (moves && carried && MADE != OF_VALUES) {
#pragma unroll
            for (int j = 0; j < K; ++j) d[j].load(x + spot.in(p.given) + j * p.given.row);
        }
#pragma unroll
        for (int i = 0; i < K; ++i) {
            Numbers moved;
#pragma unroll
            for (int n = 0; n < N; ++n) moved[n] = S(0);
            if (moves && carried && !SCANNED) moved = d[i];
            if (moves && carried && SCANNED) {
                Numbers entries;
#pragma unroll
                for (int j = 0; j < K; ++j) {
                    if (MADE == OF_DIAGONAL && i != j) continue;
                    const long long column = MADE == OF_BLOCK ? j * p.matrix.column : 0;
                    entries.load(A + spot.in(p.matrix) + i * p.matrix.row + column);
#pragma unroll
                    for (int n = 0; n < N; ++n) {
                        const S product = entries[n] * d[j][n];
                        moved[n] = MADE == OF_BLOCK && j > 0 ? moved[n] + product : product;
                    }
                }
            }
            if (moves) {
#pragma unroll
                for (int n = 0; n < N; ++n) {
                    const S proposed = MADE == OF_PROPOSAL ? moved[n] : next[i][n] + moved[n];
                    if (finite(proposed) && size_of(proposed) <= reach) next[i][n] = proposed;
                }
            }
            next[i].store(out + spot.in(p.out) + i * p.out.row);
        }
    }
}

}  // namespace recsolve
