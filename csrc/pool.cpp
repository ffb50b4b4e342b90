// The free list behind Block. Not a header: code compiled for one instruction set must never be linked into another.
#include "pool.hpp"

#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace throughtime {
namespace {

struct Piece {
    void* data;
    size_t size;
};

constexpr size_t page = 4096, huge = size_t(2) << 20, limit = size_t(512) << 20;

struct Free {
    std::mutex mutex;
    std::vector<Piece> pieces;  // the one given back last stands last: it is the warmest
    size_t held = 0;
};

Free& free_pieces() {
    static Free* all = new Free;  // never destroyed: a block may outlive the end of main
    return *all;
}

void release() {
    Free& all = free_pieces();
    std::lock_guard<std::mutex> lock(all.mutex);
    for (const Piece& piece : all.pieces) std::free(piece.data);
    all.pieces.clear();
    all.held = 0;
}

void* fresh(size_t size) {
    size_t unit = size >= huge ? huge : page;
    void* data = std::aligned_alloc(unit, size);
    if (!data) {
        release();
        data = std::aligned_alloc(unit, size);
    }
    if (!data) throw std::bad_alloc();
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (size >= huge) madvise(data, size, MADV_HUGEPAGE);
#endif
    return data;
}

}  // namespace

Block::Block(size_t size) : data_(nullptr) {
    size_t unit = size >= huge ? huge : page;
    size_ = (size > 0 ? size + unit - 1 : unit) / unit * unit;
    Free& all = free_pieces();
    {
        std::lock_guard<std::mutex> lock(all.mutex);
        for (size_t i = all.pieces.size(); i-- > 0;) {
            Piece piece = all.pieces[i];
            if (piece.size < size_ || piece.size > 2 * size_) continue;
            all.pieces.erase(all.pieces.begin() + static_cast<std::ptrdiff_t>(i));
            all.held -= piece.size;
            data_ = piece.data, size_ = piece.size;
            return;
        }
    }
    data_ = fresh(size_);
}

Block::Block(Block&& other) noexcept : data_(other.data_), size_(other.size_) { other.data_ = nullptr; }

Block::~Block() {
    if (!data_) return;
    Free& all = free_pieces();
    std::vector<Piece> surplus;
    {
        std::lock_guard<std::mutex> lock(all.mutex);
        all.pieces.push_back({data_, size_});
        all.held += size_;
        while (all.held > limit) {
            surplus.push_back(all.pieces.front());
            all.held -= all.pieces.front().size;
            all.pieces.erase(all.pieces.begin());
        }
    }
    for (const Piece& piece : surplus) std::free(piece.data);
}

}  // namespace throughtime
