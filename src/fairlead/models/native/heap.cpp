/* Memory of large CPU tensors from a heap of our own.

   glibc's aligned blocks cannot take the place of freed ones of their own size (each wants room for its alignment besides), so a training
   step, which asks for the same few sizes again and again, spreads over several times what it holds. Here a freed block fits exactly: the
   bookkeeping lies outside, every size is a multiple of the alignment, neighbours join, and the smallest block that fits is taken. Pages are
   kept, for faulting them in again costs more than arithmetic, until `fairlead_heap_give_back`.

   One range of addresses, which cost nothing, is reserved; it becomes memory from the bottom as it is needed. What is small, or does not
   fit, goes to torch's own allocator, which also says when memory ran out. */

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <pthread.h>
#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <mutex>
#include <set>
#include <unordered_map>
#include <utility>

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kSmallest = size_t(1) << 16;  // below, malloc does well and its gaps are small
constexpr size_t kStep = size_t(64) << 20;     // of growth: a call to the kernel each
constexpr size_t kMost = size_t(1) << 40, kLeast = size_t(1) << 36;
constexpr size_t kPage = 4096;

size_t up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* Offsets from `base`: blocks below `top` are live or free, [top, open) is memory that nobody has, beyond it are addresses only. */
class Heap {
public:
    bool reserve() {
        for (size_t size = kMost; size >= kLeast; size /= 2) {
            void *found = mmap(nullptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (found != MAP_FAILED) {
                base_ = static_cast<char *>(found);
                size_ = size;
                return true;
            }
        }
        return false;
    }

    bool owns(const void *p) const { return p >= base_ && p < base_ + size_; }

    /* Null where there is no room. */
    void *take(size_t bytes) {
        size_t need = up(bytes, kAlignment);
        std::lock_guard<std::mutex> hold(mutex);
        auto best = by_size_.lower_bound({need, 0});
        if (best != by_size_.end()) {
            auto [length, place] = *best;
            forget(place, length);
            if (length > need) remember(place + need, length - need);
            live_[place] = need;
            return base_ + place;
        }
        if (need > size_ - top_ || !open(top_ + need)) return nullptr;
        live_[top_] = need;
        void *found = base_ + top_;
        top_ += need;
        return found;
    }

    void give(const void *p) {
        std::lock_guard<std::mutex> hold(mutex);
        auto own = live_.find(static_cast<const char *>(p) - base_);
        if (own == live_.end()) return;
        size_t place = own->first, length = own->second;
        live_.erase(own);
        auto next = by_place_.find(place + length);
        if (next != by_place_.end()) {
            size_t more = next->second;
            forget(place + length, more);
            length += more;
        }
        auto before = by_place_.lower_bound(place);
        if (before != by_place_.begin() && (--before)->first + before->second == place) {
            size_t start = before->first, more = before->second;
            forget(start, more);
            place = start;
            length += more;
        }
        if (place + length == top_) top_ = place;
        else remember(place, length);
    }

    size_t give_back() {
        std::lock_guard<std::mutex> hold(mutex);
        size_t given = drop(top_, open_);
        for (auto [place, length] : by_place_) given += drop(place, place + length);
        return given;
    }

    size_t top() {
        std::lock_guard<std::mutex> hold(mutex);
        return top_;
    }

    std::mutex mutex;

private:
    void remember(size_t place, size_t length) {
        by_place_[place] = length;
        by_size_.insert({length, place});
    }

    void forget(size_t place, size_t length) {
        by_place_.erase(place);
        by_size_.erase({length, place});
    }

    /* By a step, or where that is refused by no more than needed. */
    bool open(size_t end) {
        if (end <= open_) return true;
        for (size_t target : {up(end, kStep), up(end, kPage)}) {
            if (target <= size_ && mprotect(base_ + open_, target - open_, PROT_READ | PROT_WRITE) == 0) {
                madvise(base_ + open_, target - open_, MADV_HUGEPAGE);  // one fault for 2 MiB; a kernel without them says no
                open_ = target;
                return true;
            }
        }
        return false;
    }

    size_t drop(size_t start, size_t end) {
        start = up(start, kPage);
        end = end / kPage * kPage;
        if (start >= end) return 0;
        return madvise(base_ + start, end - start, MADV_DONTNEED) == 0 ? end - start : 0;
    }

    char *base_ = nullptr;
    size_t size_ = 0, top_ = 0, open_ = 0;
    std::map<size_t, size_t> by_place_;
    std::set<std::pair<size_t, size_t>> by_size_;
    std::unordered_map<size_t, size_t> live_;
};

Heap *heap = nullptr;                // never deleted: tensors may outlive everything
c10::Allocator *previous = nullptr;

void release(void *p) {
    if (heap->owns(p)) heap->give(p);
    else previous->raw_deleter()(p);
}

class Allocator final : public c10::Allocator {
public:
    c10::DataPtr allocate(size_t bytes) override {
        void *found = bytes < kSmallest ? nullptr : heap->take(bytes);
        if (found == nullptr) found = previous->raw_allocate(bytes);
        return {found, found, &release, c10::Device(c10::DeviceType::CPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void *to, const void *from, size_t bytes) const override { default_copy_data(to, from, bytes); }
};

/* A fork while another thread is inside would leave the child with a lock that nobody opens. */
void before_fork() { heap->mutex.lock(); }
void after_fork() { heap->mutex.unlock(); }

}  // namespace

/* Call once, before any other. 0: no addresses to be had, or an allocator that cannot be asked from here; nothing has changed then. */
extern "C" int fairlead_heap_use() {
    previous = c10::GetCPUAllocator();
    if (previous->raw_deleter() == nullptr) return 0;
    heap = new Heap;
    if (!heap->reserve() || pthread_atfork(before_fork, after_fork, after_fork) != 0) return 0;
    c10::SetCPUAllocator(new Allocator, 255);
    return 1;
}

/* Give the pages of free blocks to the kernel; bytes of addresses that hold none now. */
extern "C" int64_t fairlead_heap_give_back() { return static_cast<int64_t>(heap->give_back()); }

/* Bytes from the first block to the end of the last. */
extern "C" int64_t fairlead_heap_top() { return static_cast<int64_t>(heap->top()); }
