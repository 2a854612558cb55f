// Few lanes, long times: every block takes a tile, and elements are read once (single-pass scan with decoupled look-back:
// Merrill and Garland, NVIDIA 2016). What maps remember makes no difference.
//
// Tiles are in the order of time, and blocks begin in the order of their numbers, which NVIDIA's own scans build on too, so a
// block only ever waits for tiles that running blocks have. A tile first tells the map of all its steps, as soon as it has read them, then the state after them. To find the state
// before its own steps a block searches the nearest tile that has told its state and applies the maps in between to it, in
// order. That is what these tiles do themselves, operation by operation, so results do not depend on who came first;
// composing the maps would not have this property, and would overflow sooner. Where a map cannot be trusted, the block
// waits for the state.
//
// Waiting is hidden by the other blocks of a multiprocessor, whose loads are under way meanwhile. What tiles tell is never
// torn: every 32 bits travel in a word of 64 together with what they are part of, so one trip to memory tells all.

#pragma once

#include "scan/tile.cuh"

namespace recsolve {

enum Told { NOTHING, MAP, CONSTANT, STATE };  // a constant map, or the state, which takes the place of the value of one

// A number in pieces of 32 bits.
template <class T> union Pieces {
    T number;
    unsigned int pieces[sizeof(T) / 4];
};

// What the tiles of the same lanes tell each other: words [tile][word][lane], zero as long as nothing is told.
template <class Tile> struct Chain {
    using Map = typename Tile::Map;
    using T = typename Map::Number;
    static constexpr int K = Map::parts, EACH = sizeof(T) / 4, MATRIX = COMPOSED<Map> * EACH, WORDS = MATRIX + K * EACH;

    unsigned long long* told;
    const int width;

    __device__ Chain(const Tile& tile, long long tile_of_lanes)
        : told(address<unsigned long long>(tile.p.told) + tile_of_lanes * tile.p.tiles_of_time * WORDS * tile.width +
               tile.lane),
          width(tile.width) {}

    __device__ unsigned long long* word(long long tile, int i) const { return told + (tile * WORDS + i) * width; }

    template <int COUNT> __device__ void tell(long long tile, int first, const T* numbers, Told what) const {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            Pieces<T> pieces;
            pieces.number = numbers[i];
#pragma unroll
            for (int j = 0; j < EACH; ++j) {
                publish(word(tile, first + i * EACH + j), static_cast<unsigned long long>(what) << 32 | pieces.pieces[j]);
            }
        }
    }

    __device__ void tell(long long tile, const Map& map) const {
        const Told what = map.constant ? CONSTANT : MAP;
        tell<COMPOSED<Map>>(tile, 0, map.a, what);
        tell<K>(tile, MATRIX, map.b, what);
    }

    // Asks what a tile has told.
    __device__ void ask(long long tile, unsigned long long* words) const {
#pragma unroll
        for (int i = 0; i < WORDS; ++i) words[i] = observe(word(tile, i));
    }

    // Waits until that is a map, or the state as a constant map; returns which it was.
    __device__ Told hear(long long tile, unsigned long long* words, Map& map) const {
        for (;; pause(), ask(tile, words)) {
            const Told what = static_cast<Told>(words[WORDS - 1] >> 32);
            bool complete = what != NOTHING;
#pragma unroll
            for (int i = 0; i < WORDS; ++i) {
                const Told each = static_cast<Told>(words[i] >> 32);
                complete &= i < MATRIX ? each != NOTHING : each == what;
            }
            if (!complete) continue;
            numbers<COMPOSED<Map>>(words, map.a);
            numbers<K>(words + MATRIX, map.b);
            map.constant = what != MAP;
            return what;
        }
    }

    __device__ void wait_for_state(long long tile, T* x) const {
        unsigned long long words[WORDS];
        Map map;
        do {
            ask(tile, words);
        } while (hear(tile, words, map) != STATE);
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = map.b[k];
    }

private:
    template <int COUNT> __device__ static void numbers(const unsigned long long* words, T* x) {
#pragma unroll
        for (int i = 0; i < COUNT; ++i) {
            Pieces<T> pieces;
#pragma unroll
            for (int j = 0; j < EACH; ++j) pieces.pieces[j] = static_cast<unsigned int>(words[i * EACH + j]);
            x[i] = pieces.number;
        }
    }
};

// Applies the maps of the `count` tiles before one to a state: TOGETHER at a time, for shared memory answers late. They are
// staged at a distance, the last one first.
template <class Tile>
__device__ inline void apply(const Chain<Tile>& chain, const typename Tile::T* staged, int distance, int before,
                             int count, typename Tile::T* x) {
    using Map = typename Tile::Map;
    using T = typename Map::Number;
    constexpr int K = Map::parts, TOGETHER = Map::size <= 3 ? 8 : 1;
#pragma unroll 1
    for (int i = count; i > 0; i -= TOGETHER) {
        Map maps[TOGETHER];
#pragma unroll
        for (int j = 0; j < TOGETHER; ++j) maps[j] = get<Map>(staged + (i > j ? i - j - 1 : 0) * chain.width, distance);
        T next[K], was[K];
        bool trusted = true;
#pragma unroll
        for (int k = 0; k < K; ++k) next[k] = x[k];
#pragma unroll
        for (int j = 0; j < TOGETHER; ++j) {
#pragma unroll
            for (int k = 0; k < K; ++k) was[k] = next[k];
            maps[j].act(next);
            trusted &= j >= i || maps[j].trusts(was, next);
#pragma unroll
            for (int k = 0; k < K; ++k) next[k] = j < i ? next[k] : was[k];
        }
        if (trusted) {
#pragma unroll
            for (int k = 0; k < K; ++k) x[k] = next[k];
            continue;
        }
#pragma unroll 1
        for (int j = i; j > 0 && j > i - TOGETHER; --j) {
#pragma unroll
            for (int k = 0; k < K; ++k) was[k] = x[k];
            const Map map = get<Map>(staged + (j - 1) * chain.width, distance);
            map.act(x);
            if (!map.trusts(was, x)) chain.wait_for_state(before - j, x);
        }
    }
}

// Stages the maps of the tiles before this one, the nearest first, until all lanes find a state among them; returns how far
// that of this thread's lane is, where "tile -1" is the initial state. All are asked at once.
template <int BATCH, class Tile>
__device__ inline int stage(const Tile& tile, const Chain<Tile>& chain, typename Tile::T* staged) {
    constexpr int ALL = Tile::THREADS * BATCH;
    const int last = tile.times - 1 - tile.thread / tile.width, apart = Tile::THREADS / tile.width;
    int* nearest = tile.control + tile.lane;
    do {
        unsigned long long words[BATCH][Chain<Tile>::WORDS];
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            if (last - i * apart >= 0 && tile.exists()) chain.ask(last - i * apart, words[i]);
        }
#pragma unroll
        for (int i = 0; i < BATCH; ++i) {
            const int at = last - i * apart;
            typename Tile::Map map;
            map.identity();
            bool state = at < 0;
            if (state) tile.read(tile.start, map.b), map.constant = true;
            if (!state && tile.exists()) state = chain.hear(at, words[i], map) == STATE;
            put(map, staged + i * Tile::THREADS + tile.thread, ALL);
            if (state) atomicMin(nearest, tile.times - 1 - at);
        }
        __syncthreads();
    } while (__syncthreads_or(*nearest == FAR));
    return *nearest;
}

// Finds the state before a tile, and tells the one after it, as other blocks reckon it; returns whether this thread must tell
// that of its lane later, because the map of the tile, `whole` in the first threads, cannot be trusted.
template <int BATCH, class Tile>
__device__ inline bool look_back(Tile& tile, const Chain<Tile>& chain, const typename Tile::Map& whole, bool tells) {
    using Map = typename Tile::Map;
    constexpr int K = Map::parts, ALL = Tile::THREADS * BATCH;
    const int nearest = stage<BATCH>(tile, chain, tile.spare);
    bool late = false;
    if (tile.thread < tile.width) {
        const typename Tile::T* staged = tile.spare + tile.lane;
        typename Tile::T x[K], end[K];
#pragma unroll
        for (int k = 0; k < K; ++k) x[k] = staged[nearest * tile.width + (COMPOSED<Map> + k) * ALL];
        apply(chain, staged, ALL, tile.times, nearest, x);
        tile.write(tile.carry, x);
#pragma unroll
        for (int k = 0; k < K; ++k) end[k] = x[k];
        whole.act(end);
        late = tells && !whole.trusts(x, end);
        if (tells && !late) chain.template tell<K>(tile.times, Chain<Tile>::MATRIX, end, STATE);
        tile.spread();
    }
    return late;
}

template <class Map, class S, bool CUT, int THREADS, int RUN, int V, int VECTOR, bool ALONG, int BLOCKS, int BATCH>
__global__ void __launch_bounds__(THREADS, BLOCKS) chained(const Problem p) {
    using Its = Tile<Map, S, CUT, THREADS, RUN, V, VECTOR, ALONG>;
    Its tile(p, Map::size * THREADS * BATCH);
    const int across = static_cast<int>(p.tiles_of_lanes), tile_of_lanes = static_cast<int>(blockIdx.x) % across;
    tile.turn_to(tile_of_lanes, static_cast<int>(blockIdx.x) / across);
    tile.find_lanes();
    __syncthreads();
    tile.fetch();
    const Chain<Its> chain(tile, tile_of_lanes);
    const Map whole = tile.compose();
    const bool tells = tile.thread < tile.width && tile.exists() && tile.times + 1 < p.tiles_of_time;
    if (tells) chain.tell(tile.times, whole);
    const bool late = look_back<BATCH>(tile, chain, whole, tells);
    tile.fill(__syncthreads_or(late));
    if (late) {
        typename Map::Number end[Map::parts];
        tile.read(tile.carry, end);
        chain.template tell<Map::parts>(tile.times, Chain<Its>::MATRIX, end, STATE);
    }
    tile.store();
}

}  // namespace recsolve
