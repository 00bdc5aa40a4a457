/* What Java calls. */
#include <jni.h>
unsigned library_step(unsigned round);
JNIEXPORT jint JNICALL Java_Third_step(JNIEnv *env, jclass none, jint round) {
    (void)env, (void)none;
    return (jint)library_step((unsigned)round);
}
