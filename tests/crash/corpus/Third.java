/** Calls a C library. */
public class Third {
    static native int step(int round);

    public static void main(String[] words) {
        System.load(System.getProperty("user.dir") + "/libcodec.so");
        System.out.println("step " + step(3));
    }
}
