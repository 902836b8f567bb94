"""The straightforward collection of features: a loop in Python over every activation, with the counts and heaps that
bench/features.cc keeps. `features_loop.py FILE LAYERS`: FILE is what bench/features.cc wrote."""
import heapq
import random
import struct
import sys
import time


def read(path, layers):
    """[(regions, [layer's (feature, token, activation) …])] of each conversation."""
    data = memoryview(open(path, "rb").read())
    at, conversations = 0, []
    while at < len(data):
        (tokens,) = struct.unpack_from("<i", data, at)
        regions = struct.unpack_from(f"<{tokens}i", data, at + 4)
        at += 4 + 4 * tokens
        pairs = []
        for _ in range(layers):
            (count,) = struct.unpack_from("<i", data, at)
            pairs.append(list(struct.iter_unpack("<iif", data[at + 4:at + 4 + 12 * count])))
            at += 4 + 12 * count
        conversations.append((regions, pairs))
    return conversations


def collect(conversations):
    features, draw = {}, random.Random(0)
    for number, (regions, layers) in enumerate(conversations):
        begin = regions.index(5) if 5 in regions else 0
        end = len(regions) - regions[::-1].index(5) if 5 in regions else 0
        for layer, pairs in enumerate(layers):
            by_feature = {}
            for feature, token, activation in pairs:
                by_feature.setdefault(feature, []).append((token, activation))
            for feature, active in by_feature.items():
                record = features.setdefault((layer, feature), ([0], {}, [0] * 10, [], []))
                for token, activation in active:
                    record[0][0] += 1
                    record[1][regions[token]] = record[1].get(regions[token], 0) + 1
                    if begin <= token < end:
                        record[2][10 * (token - begin) // (end - begin)] += 1
                    example = (activation, -number, -token)
                    if len(record[3]) < 20 or example > record[3][0][:3]:
                        near = [(t, a) for t, a in active if token - 50 <= t <= token + 20]
                        push = heapq.heappush if len(record[3]) < 20 else heapq.heapreplace
                        push(record[3], (*example, near))
                    key = (-draw.random(), number, token)
                    if len(record[4]) < 10 or key > record[4][0][:3]:
                        near = [(t, a) for t, a in active if token - 50 <= t <= token + 20]
                        push = heapq.heappush if len(record[4]) < 10 else heapq.heapreplace
                        push(record[4], (*key, near))
    return features


def main():
    conversations = read(sys.argv[1], int(sys.argv[2]))
    tokens = sum(len(regions) for regions, _ in conversations)
    pairs = sum(len(layer) for _, layers in conversations for layer in layers)
    start = time.perf_counter()
    features = collect(conversations)
    seconds = time.perf_counter() - start
    assert sum(record[0][0] for record in features.values()) == pairs
    print(f"        the loop in Python alone {tokens / seconds:8.0f} tokens/s  {pairs / seconds * 1e-6:.2f}M pairs/s")


if __name__ == "__main__":
    main()
