// Solves by multiple shooting over all segments of time at once (Bellen and Zennaro 1989).
//
// A warp owns a segment of 32 lanes. It first walks some steps before the segment from a guess. If these forget what they
// started from, it writes the segment at once; if not, it walks it with the derivative of its end. An affine scan over the
// ends then corrects the starts of all segments (Newton's method for the boundaries), and those that move, and so far only
// those, are walked again. What is as good as right is written as it is walked.
//
// Inside a segment a walk is exact, so the defect sits at boundaries: a segment is accepted when its first step could as
// well have started from the end of the segment before it. Where a few tolerances are left, the next steps take them up,
// each within its own. What is not accepted in time is walked in order.
//
// A block has WARPS segments: those of several groups of lanes, or the segments of a group lie in several blocks. These
// take numbers as they start, earlier times first, and wait for none that started after them; they tell each other
// what their segments amount to, sweep after sweep. Earlier segments depend on none of the later ones, so blocks end one
// after the other.

#pragma once

#include "solve/walk.cuh"

namespace recsolve {

template <class Cell, class S, bool CUT, int WARPS, int STEPS, int SLOTS> struct Shooting {
    using T = typename Stored<S>::Number;
    using Loads = DriveRing<Cell, S, CUT, STEPS, SLOTS>;
    static constexpr int K = Cell::PARTS, LINK = Link<T, K>::NUMBERS * LANES;

    // Shared memory: rings of the warps, their links, compositions of those of earlier blocks, words.
    struct Words {
        int number, told[WARPS], seen[WARPS * LANES], counts[FIELDS];
    };

    const Recurrence<Cell>& p;
    const int warp, own;
    T *const links, *const earlier;
    Words& words;
    long long part, set;
    int before;  // warps of this block with earlier segments of the same lanes
    int size;    // and warps with any of these
    bool exists;
    Walk<Cell, S, CUT, STEPS, SLOTS> walk;
    Kind kind;
    bool met = true;
    T defect = T(0);
    int walks = 0, ordered = 0;

    __device__ explicit Shooting(const Recurrence<Cell>& problem, T* room, Words& block)
        : p(problem), warp(threadIdx.x / LANES), own(threadIdx.x % LANES), links(room), earlier(room + WARPS * LINK),
          words(block), part(block.number / p.sets), set(block.number % p.sets),
          before(static_cast<int>(p.segments < WARPS ? warp % p.segments : warp)),
          size(static_cast<int>(p.segments - part * WARPS < WARPS ? p.segments - part * WARPS : WARPS)),
          exists(before < size && group() < p.groups && warp < several() * size),
          walk(p, exists ? group() : p.groups, part * WARPS + before, shared_memory() + warp * Loads::BYTES, words.told + warp) {}

    __device__ int several() const { return p.segments < WARPS ? static_cast<int>(WARPS / p.segments) : 1; }
    __device__ long long group() const { return set * several() + (p.segments < WARPS ? warp / p.segments : 0); }

    __device__ int* counters() const { return address<int>(p.counters); }
    __device__ int* flag(long long of) const { return counters() + FIELDS + of * p.sets + set; }
    __device__ T* message(long long sweep, long long of) const {
        return address<T>(p.links) + ((sweep * p.parts + of) * p.sets + set) * LINK + own;
    }

    __device__ void go(long long from) {
        if (!Cell::BACK && kind == MEND) {
            walk.mend();
        } else {
            walk.run(from, kind);
        }
        walks += 1;
        walk.ask(walk.first);
    }

    __device__ void solve() {
        if (exists) {
            const long long lead = walk.first < p.burn ? walk.first : p.burn;
            kind = walk.segment == 0 || p.exact ? WRITE : LINEAR;
            walk.ask(walk.first - lead);
            go(walk.first - lead);
        }
        agree();
        walk.ring.template wait<0>();
        report();
    }

    // Sweeps until nothing moves.
    __device__ void agree() {
        for (long long sweep = 0; sweep < p.most; ++sweep) {
            Chain<T, K> chain;
            tell();
            __syncthreads();
            if (p.parts > 1) exchange(sweep, chain);
            for (int i = 0; i < before; ++i) append(chain, links + (warp - before + i) * LINK);
            const bool again = exists && walk.segment > 0 && judge(chain, sweep);
            const bool moved = __syncthreads_or(again);
            if (p.parts > 1 && threadIdx.x == 0) publish(flag(part), state(sweep, moved ? MOVES : STAYS));
            if (!moved && all_stay(sweep)) return end(sweep);
            if (again) go(walk.first);
        }
        in_order();
    }

    // Puts where the others of the block see it what the segment amounts to.
    __device__ void tell() {
        Link<T, K> link;
#pragma unroll
        for (int i = 0; i < K * K; ++i) link.A[i] = walk.A[i];
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const T size = larger(size_of(walk.start[i]), size_of(walk.end[i]));
            link.rho[i] = T(0), link.first[i] = walk.start[i], link.last[i] = walk.end[i];
            link.size[i] = finite(walk.end[i]) ? size : infinity<T>();
        }
        walk.bounds(link.bound);
#pragma unroll
        for (int i = 0; i < K; ++i) link.bound[i] = walk.written ? link.bound[i] : T(-1);
        link.put(links + warp * LINK + own);
    }

    __device__ void append(Chain<T, K>& chain, const T* from) const {
        Link<T, K> link;
        link.get(from + own);
        chain.append(link);
    }

    __device__ void send(long long sweep) {
        Chain<T, K> all;
        for (int i = 0; i < size; ++i) append(all, links + i * LINK);
        all.all.put(message(sweep, part));
        __syncwarp();
    }

    // Flags of blocks: what they have done in a sweep, in this order. One that has ended stays as it is.
    enum State { TOLD, MOVES, STAYS, ENDED };
    __device__ static int state(long long sweep, State of) { return static_cast<int>(4 * sweep + 4 + of); }

    __device__ void end(long long sweep) {
        __syncthreads();
        if (p.parts > 1 && threadIdx.x == 0) publish(flag(part), state(sweep, State::ENDED));
    }

    // Waits until a block has come so far, or has ended.
    __device__ int wait_for(long long of, int value) const {
        for (;; pause()) {
            const int seen = observe(flag(of));
            if (seen >= value || seen % 4 == State::ENDED) return acquire(flag(of));
        }
    }

    // The parts before this one that a warp looks after, a thread for each.
    __device__ long long each() const { return (part + WARPS - 1) / WARPS; }
    __device__ long long from() const { return warp * each(); }
    __device__ long long to() const { return from() + each() < part ? from() + each() : part; }

    // Whether none of the earlier blocks moves in a sweep, and so none ever will.
    __device__ bool all_stay(long long sweep) {
        bool stays = true;
        if (p.parts > 1 && from() + own < to()) {
            const int seen = wait_for(from() + own, state(sweep, MOVES));
            stays = seen == state(sweep, STAYS) || (seen % 4 == State::ENDED && seen <= state(sweep, State::ENDED));
        }
        return !__syncthreads_or(!stays);
    }

    // Tells later blocks what the segments of this one amount to, and composes what earlier ones do.
    __device__ void exchange(long long sweep, Chain<T, K>& chain) {
        if (warp == 0) {
            send(sweep);
            if (own == 0) publish(flag(part), state(sweep, TOLD));
        }
        if (from() + own < to()) words.seen[threadIdx.x] = wait_for(from() + own, state(sweep, TOLD));
        __syncwarp();
        Chain<T, K> share;
#pragma unroll 4
        for (long long i = from(); i < to(); ++i) {
            const int last = words.seen[warp * LANES + (i - from())] / 4 - 1;  // sweep, if it has ended before
            append(share, message(last < sweep ? last : sweep, i) - own);
        }
        if (share.begun) share.all.put(earlier + warp * LINK + own);
        __syncthreads();
        for (int i = 0; i * each() < part; ++i) append(chain, earlier + i * LINK);
    }

    // Moves the start to where the chain of earlier segments leads, in the lanes where it may not stay; returns whether there
    // are any, and sets how to walk from there.
    __device__ bool judge(const Chain<T, K>& chain, long long sweep) {
        walk.ring.template wait<0>();
        const T limit = T(2ll << 3 * (sweep < 8 ? sweep : 8));  // times what is known, as far as a start is believed at first
        T x[K], bound[K], r = T(0);
        walk.bounds(bound);
        const bool follows = walk.written && walk.follows(chain.all.last, r);
        bool stays = follows, near = true, little = walk.written && !Cell::BACK, forgets = true;
#pragma unroll
        for (int i = 0; i < K * K; ++i) forgets &= walk.A[i] == T(0);
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const T start = walk.start[i], last = chain.all.last[i], move = chain.all.rho[i], known = chain.all.size[i];
            const bool stay = follows && close(last, start, bound[i]);
            x[i] = (stay ? start : walk.written ? last - slack(last, start, bound[i]) : last) + move;
            // A start is not finite where an end before it is not; elsewhere that is but what derivatives have grown to.
            const bool lost = finite(x[i]) ? !Cell::IS_LINEAR && size_of(move) > limit * known : finite(known);
            x[i] = lost ? last : x[i];
            const T moves = x[i] - start;
            stays &= same(x[i], start) || within(1, Cell::IS_LINEAR ? move : moves, bound[i]);
            near &= !(size_of(moves) > T(p.near) * (T(p.atol) + T(p.rtol) * size_of(x[i])));
            little &= forgets || within(MENDED, moves, bound[i]);
        }
#pragma unroll
        for (int i = 0; i < K; ++i) walk.start[i] = stays ? walk.start[i] : x[i];
        defect = stays ? r : T(0), met = stays;
        near |= stays || Cell::IS_LINEAR || p.exact, little |= stays;
        kind = walk.any(!little) ? walk.any(!near) ? LINEAR : WRITE : MEND;
        return walk.any(!stays);
    }

    // Walks what does not follow, one segment after the other.
    __device__ void in_order() {
        tell();
        if (part > 0 && threadIdx.x == 0) words.number = wait_for(part - 1, 1 << 30);
        __syncthreads();
        for (int turn = 0; turn < size; ++turn) {
            if (exists && turn == before && walk.segment > 0) {
                Link<T, K> link;
                link.get(before > 0 ? links + (warp - 1) * LINK + own : message(words.number / 4 - 1, part - 1));
                follow(link.last);
                tell();
            }
            __syncthreads();
        }
        if (p.parts > 1 && warp == 0) send(p.most);
        end(p.most);
    }

    __device__ void follow(const T* last) {
        walk.ring.template wait<0>();
        T r = T(0);
        const bool stays = walk.written && walk.follows(last, r);
#pragma unroll
        for (int i = 0; i < K; ++i) walk.start[i] = stays ? walk.start[i] : last[i];
        defect = stays ? r : T(0), met = true, kind = WRITE;
        if (!walk.any(!stays)) return;
        go(walk.first);
        ordered += 1;
    }

    // Tells what happened; the block comes here as a whole.
    __device__ void report() {
        if (exists) {
            const T worst = larger(defect, walk.defect);
            if (walk.lane.exists && worst > T(0)) atomicMax(words.counts + WORST, bits_of(static_cast<float>(worst)));
            if (walk.lane.exists && !(met && walk.written)) atomicAdd(words.counts + UNMET, 1);
            if (own == 0) {
                atomicAdd(words.counts + Fields::ENDED, 1);
                atomicMax(words.counts + SWEEPS, walks);
                atomicAdd(words.counts + REDONE, walks - 1);
                atomicAdd(words.counts + WALKED, ordered);
            }
        }
        __syncthreads();
        const int field = threadIdx.x, value = field < FIELDS ? words.counts[field] : 0;
        if (value == 0) return;
        if (field == SWEEPS || field == WORST) atomicMax(counters() + field, value);
        if (field != SWEEPS && field != WORST) atomicAdd(counters() + field, value);
    }
};

template <class Cell, class S, bool CUT, int WARPS, int STEPS, int SLOTS, int BLOCKS>
__global__ void __launch_bounds__(WARPS* LANES, BLOCKS) solve_segments(const Recurrence<Cell> p) {
    using Block = Shooting<Cell, S, CUT, WARPS, STEPS, SLOTS>;
    using T = typename Block::T;
    unsigned char* room = shared_memory() + WARPS * Block::Loads::BYTES;
    T* links = reinterpret_cast<T*>(room);
    auto& words = *reinterpret_cast<typename Block::Words*>(room + 2 * WARPS * Block::LINK * sizeof(T));
    if (threadIdx.x < FIELDS) words.counts[threadIdx.x] = 0;
    if (threadIdx.x == 0) words.number = atomicAdd(address<int>(p.counters) + STARTED, 1);
    __syncthreads();
    Block(p, links, words).solve();
}

}  // namespace recsolve
