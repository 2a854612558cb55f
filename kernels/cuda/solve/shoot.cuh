// Solves by multiple shooting over all segments of time at once (Bellen and Zennaro 1989).
//
// A warp owns a segment of 32 lanes. It first walks some steps before the segment from a guess. If these forget what they
// started from, it writes the segment at once; if not, it walks it with the derivative of its end. An affine scan over the
// ends then corrects the starts of all segments (Newton's method for the boundaries), and those that move, and so far only
// those, are walked again. What is as good as right is written as it is walked.
//
// Inside a segment a walk is exact, so the defect sits at boundaries only: a segment is accepted when its first step
// could as well have started from the end of the segment before it. What is not accepted in time is walked in order.
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
    static constexpr int MESSAGE = LINK + LANES;  // a link, and whether anything has been walked

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
    bool writes, met = true;
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
        return address<T>(p.links) + ((sweep * p.parts + of) * p.sets + set) * MESSAGE + own;
    }

    __device__ void go(long long from) {
        walk.run(from, writes);
        walks += 1;
        walk.ask(walk.first);
    }

    __device__ void solve() {
        if (exists) {
            const long long lead = walk.first < p.burn ? walk.first : p.burn;
            writes = walk.segment == 0 || p.exact;
            walk.ask(walk.first - lead);
            go(walk.first - lead);
        }
        agree();
        walk.ring.template wait<0>();
        report();
    }

    // Sweeps until nothing moves.
    __device__ void agree() {
        bool moved = true;
        for (long long sweep = 0; sweep < p.most; ++sweep) {
            Chain<T, K> chain(p.atol, p.rtol);
            bool final = true;
            tell();
            __syncthreads();
            if (p.parts > 1) final = exchange(sweep, moved, chain);
            for (int i = 0; i < before; ++i) append(chain, links + (warp - before + i) * LINK);
            const bool again = exists && walk.segment > 0 && judge(chain, sweep);
            moved = __syncthreads_or(again);
            if (!moved && final) return publish_last(2 * sweep + 3);
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
        link.put(links + warp * LINK + own);
    }

    __device__ void append(Chain<T, K>& chain, const T* from) const {
        Link<T, K> link;
        link.get(from + own);
        chain.append(link);
    }

    __device__ void send(long long sweep, bool moved) {
        Chain<T, K> all(p.atol, p.rtol);
        for (int i = 0; i < size; ++i) append(all, links + i * LINK);
        all.all.put(message(sweep, part));
        message(sweep, part)[LINK] = moved ? T(1) : T(0);
        __syncwarp();
    }

    // A flag is 2 (sweep + 1), and 1 more once nothing will change.
    __device__ void publish_last(long long value) {
        __syncthreads();
        if (p.parts > 1 && threadIdx.x == 0) publish(flag(part), static_cast<int>(value));
    }

    // Tells later blocks what the segments of this one amount to, and composes what earlier ones do; returns whether none of
    // these will change. A warp takes a share of them, a thread waits for each.
    __device__ bool exchange(long long sweep, bool moved, Chain<T, K>& chain) {
        if (warp == 0) {
            send(sweep, moved);
            if (own == 0) publish(flag(part), static_cast<int>(2 * sweep + 2));
        }
        const long long each = (part + WARPS - 1) / WARPS, from = warp * each, to = from + each < part ? from + each : part;
        if (from + own < to) words.seen[threadIdx.x] = wait_for(from + own, static_cast<int>(2 * sweep + 2));
        __syncwarp();
        fence();
        Chain<T, K> share(p.atol, p.rtol);
        bool changes = false;
#pragma unroll 4
        for (long long i = from; i < to; ++i) {
            const int seen = words.seen[warp * LANES + (i - from)];
            const T* of = message(seen & 1 ? seen / 2 - 1 : sweep, i);
            append(share, of - own);
            changes |= !(seen & 1) && of[LINK] != T(0);
        }
        if (share.begun) share.all.put(earlier + warp * LINK + own);
        changes = __syncthreads_or(changes);
        for (int i = 0; i * each < part; ++i) append(chain, earlier + i * LINK);
        return !changes;
    }

    // Waits until a flag has a value, or its block has ended.
    __device__ int wait_for(long long of, int value) const {
        for (;; pause()) {
            const int seen = observe(flag(of));
            if (seen >= value || seen & 1) return seen;
        }
    }

    // Moves the start to where the chain of earlier segments leads, in the lanes where it may not stay; returns whether there
    // are any, and sets whether what is walked from there is to be written.
    __device__ bool judge(const Chain<T, K>& chain, long long sweep) {
        walk.ring.template wait<0>();
        const T limit = T(2ll << 3 * (sweep < 8 ? sweep : 8));  // times what is known, as far as a start is believed at first
        T x[K], r = T(0);
        bool stays = walk.written && walk.follows(chain.all.last, r), near = true;
#pragma unroll
        for (int i = 0; i < K; ++i) {
            const T last = chain.all.last[i], move = chain.all.rho[i], known = chain.all.size[i];
            x[i] = last + move;
            // A start is not finite where an end before it is not; elsewhere that is but what derivatives have grown to.
            const bool lost = finite(x[i]) ? !Cell::IS_LINEAR && size_of(move) > limit * known : finite(known);
            x[i] = lost ? last : x[i];
            near &= !(size_of(x[i] - walk.start[i]) > T(p.near) * (chain.atol + chain.rtol * size_of(x[i])));
            stays &= chain.close(x[i], walk.start[i]);
        }
#pragma unroll
        for (int i = 0; i < K; ++i) walk.start[i] = stays ? walk.start[i] : x[i];
        defect = stays ? r : T(0), met = stays;
        writes = Cell::IS_LINEAR || p.exact || !walk.any(!stays && !near);
        return walk.any(!stays);
    }

    // Walks what does not follow, one segment after the other.
    __device__ void in_order() {
        tell();
        if (part > 0 && threadIdx.x == 0) words.number = wait_for(part - 1, 1 << 30);
        __syncthreads();
        fence();
        for (int turn = 0; turn < size; ++turn) {
            if (exists && turn == before && walk.segment > 0) {
                Link<T, K> link;
                link.get(before > 0 ? links + (warp - 1) * LINK + own : message(words.number / 2 - 1, part - 1));
                follow(link.last);
                tell();
            }
            __syncthreads();
        }
        if (p.parts > 1 && warp == 0) send(p.most, true);
        publish_last(2 * p.most + 3);
    }

    __device__ void follow(const T* last) {
        walk.ring.template wait<0>();
        T r = T(0);
        const bool stays = walk.written && walk.follows(last, r);
#pragma unroll
        for (int i = 0; i < K; ++i) walk.start[i] = stays ? walk.start[i] : last[i];
        defect = stays ? r : T(0), met = writes = true;
        if (!walk.any(!stays)) return;
        go(walk.first);
        ordered += 1;
    }

    // Tells what happened; the block comes here as a whole.
    __device__ void report() {
        if (exists) {
            if (walk.lane.exists && defect > T(0)) atomicMax(words.counts + WORST, bits_of(static_cast<float>(defect)));
            if (walk.lane.exists && !(met && walk.written)) atomicAdd(words.counts + UNMET, 1);
            if (own == 0) {
                atomicAdd(words.counts + ENDED, 1);
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
