// Uploaded images: staging areas as staging.py writes them, and the part of an image inside the network frame.

// Header of a staging area. The pixels follow it, in the orientation of the source image; rows start at multiples of 16
// bytes.
struct Header {
    int rows, columns;
    int row, column;  // of the upper-left pixel in the network frame, if the pixels are only those of the window
    int mirrored;     // the network frame shows the columns from right to left
    int kind;         // PIXEL_UINT16, PIXEL_FLOAT32, PIXEL_UINT8
    int whole;        // the pixels are the whole source image; `center` writes the window to `Scratch`
    int is_mlo;       // of a whole image: an MLO view
};
static_assert(sizeof(Header) <= HEADER_BYTES, "HEADER_BYTES is too small");

template <class Pixel>
struct alignas(16) Sixteen {
    static constexpr int COUNT = 16 / sizeof(Pixel);
    Pixel at[COUNT];
};

// A rectangle of uploaded pixels.
struct View {
    const char* pixels;  // of the area
    int pitch;           // columns of the area
    int top, left;       // of the rectangle in the area
    int rows, columns;
    int row, column;  // of its upper-left pixel in the network frame
    int mirrored, kind;
};

__device__ inline const Header& header_of(const char* staging, long long area_bytes) {
    return *reinterpret_cast<const Header*>(staging + blockIdx.z * area_bytes);
}

// The pixels inside the network's window.
__device__ inline View view_of(const char* staging, long long area_bytes, const Scratch& scratch) {
    const Header& area = header_of(staging, area_bytes);
    const char* pixels = reinterpret_cast<const char*>(&area) + HEADER_BYTES;
    const Window part = area.whole ? scratch.window : Window{0, 0, area.rows, area.columns, area.row, area.column};
    return {pixels,   area.columns, part.top,      part.left, part.rows, part.columns,
            part.row, part.column,  area.mirrored, area.kind};
}

// Start of a row of the area.
template <class Pixel>
__device__ const Sixteen<Pixel>* row_of(const char* pixels, int columns, int row) {
    const int groups = (columns + Sixteen<Pixel>::COUNT - 1) / Sixteen<Pixel>::COUNT;
    return reinterpret_cast<const Sixteen<Pixel>*>(pixels) + row * groups;
}
