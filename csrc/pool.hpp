// Memory that is used again: fresh pages cost more than the arithmetic done in them.
#pragma once
#include <cstddef>

namespace throughtime {

// A piece of memory for as long as this object lives: aligned to a page, not initialised.
// It comes from a free list of this process and goes back to it; any thread may make and end one.
class Block {
public:
    explicit Block(size_t size);
    ~Block();
    Block(Block&& other) noexcept;
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    void* data() const { return data_; }
    size_t size() const { return size_; }

private:
    void* data_;
    size_t size_;
};

}  // namespace throughtime
