module hasher.example/bench

go 1.19
