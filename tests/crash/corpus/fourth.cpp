// The fourth author's faults, ordinary ones: -DFAULT=NAME. One LLVM each.
#include <algorithm>
#include <cassert>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>
#include <unistd.h>

struct Order {
    int id;
    std::string customer;
    double price;
};

class Store {
public:
    void add(int id, const std::string &customer, double price) {
        orders_[id] = std::make_unique<Order>(Order{id, customer, price});
        recent_.push_back(orders_[id].get());
    }
    const Order *find(int id) const {
        auto found = orders_.find(id);
        return found == orders_.end() ? nullptr : found->second.get();
    }
    void drop(int id) { orders_.erase(id); }
    const std::vector<const Order *> &recent() const { return recent_; }

private:
    std::map<int, std::unique_ptr<Order>> orders_;
    std::vector<const Order *> recent_;
};

#define APART __attribute__((noinline))
static volatile int zero;
static volatile size_t far = 7;

APART static double price_of(const Store &store, int id) { return store.find(id)->price; }
APART static int missing_order(Store &store) { return price_of(store, 17) > 3; }

APART static double newest(const Store &store) {
    double sum = 0;
    for (const Order *order : store.recent())
        sum += order->price;
    return sum;
}
APART static int dropped_order(Store &store) {
    store.drop(2);
    return newest(store) > 3;
}
APART static int past_end(Store &store) { return store.recent().at(far)->id; }
APART static int checked(Store &store) {
    const Order *order = store.find(17);
    assert(order != nullptr && "order must exist");
    return order->id;
}
APART static int bad_index(Store &) {
    static const int rates[4] = {7, 19, 0, 5};
    return rates[far];
}
APART static int bad_sort(Store &store) {
    std::vector<std::unique_ptr<Order>> copy(3);
    copy[0] = std::make_unique<Order>(*store.find(1));
    std::sort(copy.begin(), copy.end(), [](const auto &a, const auto &b) { return a->price < b->price; });
    return copy[0]->id;
}
APART static int detached(Store &store) {
    std::thread([&store] { std::printf("%f\n", price_of(store, 17)); }).join();
    return 0;
}
APART static int long_name(Store &) {
    char name[8];
    std::strcpy(name, zero ? "short" : "a customer with quite a long name, longer than the room for it");
    return name[far];
}
APART static int uninitialised(Store &) {
    int *counts = new int[8];
    int sum = 0;
    for (int i = 0; i <= 8; i++)
        sum += counts[i] > 3;
    delete[] counts;
    return sum & zero;
}
APART static int fine(Store &) { return 0; }

int main() {
    Store store;
    store.add(1, "Jones", 3.5);
    store.add(2, "Miller", 12.25);
    store.add(3, "Okafor", 7);
    std::printf("%zu orders\n", store.recent().size());
    std::fflush(stdout);
    return FAULT(store);
}
