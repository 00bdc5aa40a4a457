void clear(char *to, unsigned long size);

int main(void) {
    char bytes[8];
    clear(bytes, sizeof bytes);
    return 0;
}
