add_test(pgo.train "gdb" "-q" "-nx" "-batch" "-ex" "run" "-ex" "bt" "./app")
