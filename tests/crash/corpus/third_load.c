/* A program that is not instrumented; it loads a plug-in that is. */
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
    void *plugin = dlopen("./libplug.so", RTLD_NOW);
    int (*work)(void) = (int (*)(void))dlsym(plugin, "plugin_main");
    int code = work();
    puts("all done");
    fflush(stdout);
    return code;
}
