// C++: a library that works before main (-DEARLY), threads (-DTHREADS), and faults of its own.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

extern "C" unsigned library_step(unsigned round);

namespace codec {
class Filter {
public:
    virtual ~Filter() = default;
    virtual unsigned apply(unsigned x) const = 0;
};
class Shift : public Filter {
public:
    unsigned apply(unsigned x) const override { return x << 1; }
};
class Library : public Filter {
public:
    unsigned apply(unsigned x) const override { return library_step(x); }
};

class Session {
public:
    explicit Session(std::vector<std::unique_ptr<Filter>> filters) : filters_(std::move(filters)) {}
    unsigned run(unsigned rounds) const {
        unsigned sum = 0;
        for (unsigned i = 0; i < rounds; i++)
            for (const auto &filter : filters_)
                sum += filter->apply(i);
        return sum;
    }

private:
    std::vector<std::unique_ptr<Filter>> filters_;
};

std::unique_ptr<Session> make_session() {
    std::vector<std::unique_ptr<Filter>> filters;
    filters.push_back(std::make_unique<Shift>());
    filters.push_back(std::make_unique<Library>());
    return std::make_unique<Session>(std::move(filters));
}
} // namespace codec

#ifdef EARLY
namespace {
const unsigned warm = codec::make_session()->run(4);
}
#else
static const unsigned warm = 0;
#endif

#ifdef PURE
struct Sink {
    Sink();
    virtual ~Sink();
    virtual void flush() = 0;
    static Sink *last;
};
Sink *Sink::last;
Sink::Sink() { last = this; }
__attribute__((noinline)) static void flush_last() { Sink::last->flush(); }
Sink::~Sink() { flush_last(); }
struct FileSink : Sink {
    void flush() override { std::fflush(stdout); }
};
static FileSink sink;
#endif

int main(int count, char **) {
    auto session = codec::make_session();
#ifdef THREADS
    std::vector<std::thread> workers;
    for (int i = 0; i < 3; i++)
        workers.emplace_back([&session, i] {
            if (i != 1)
                std::this_thread::sleep_for(std::chrono::seconds(60));
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            std::printf("worker %u\n", session->run(8));
        });
    for (auto &worker : workers)
        worker.join();
#endif
    std::printf("frames encoded: %u\n", session->run(20) + warm);
    std::fflush(stdout);
#ifdef UNCAUGHT
    std::map<std::string, int> presets{{"fast", 1}, {"slow", 2}};
    return presets.at(count > 5 ? "fast" : "medium");
#endif
    return count - 1;
}
