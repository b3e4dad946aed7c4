public class Scraper {
    public static void main(String[] arguments) {
        try {
            read(null);
        } catch (RuntimeException error) {
            throw new IllegalStateException("the page has no table", error);
        }
    }

    private static int read(String page) {
        return page.length();
    }
}
