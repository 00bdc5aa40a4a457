app: main.o codec.o
	$(CC) $^ -o $@
