package sqlite

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"os"
)

// What a damaged file still holds is read here without SQLite, which gives up on
// a table of which the root, or the schema, cannot be read: each page that has
// the form of a table's leaf is looked at by itself. The format is that of
// https://sqlite.org/fileformat2.html.
const (
	rawPageSize = 4096 // of every file that Open made
	rawLeaf     = 0x0d
	rawHeader   = 100     // of the file, on page 1
	rawRecord   = 8 << 20 // more than any row of ours has
)

// rawFile is a database file with the committed pages of its log over it.
type rawFile struct {
	file, log io.ReaderAt
	pages     uint32
	logged    map[uint32]int64 // where in the log the latest copy of a page is
}

// openRaw opens the file at path as it is.
func openRaw(path string) (*rawFile, func(), error) {
	wal, err := readWAL(path + "-wal")
	if err != nil {
		return nil, nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	r := &rawFile{file: f, pages: uint32(min(info.Size()/rawPageSize, math.MaxUint32))}
	if len(wal.images) == 0 || wal.pageSize != rawPageSize {
		return r, func() { _ = f.Close() }, nil
	}
	log, err := os.Open(path + "-wal")
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	r.log, r.logged, r.pages = log, wal.images, max(r.pages, wal.pages)
	return r, func() { _ = errors.Join(f.Close(), log.Close()) }, nil
}

// page gives page n, from 1; false if there is none.
func (r *rawFile) page(n uint32, into []byte) bool {
	if n == 0 {
		return false
	}
	if at, ok := r.logged[n]; ok {
		_, err := r.log.ReadAt(into, at)
		return err == nil
	}
	_, err := r.file.ReadAt(into, int64(n-1)*rawPageSize)
	return err == nil
}

// rows calls each with every record that can be read, in the order of the pages.
// Values are nil, int64, float64, string and []byte; the column that is the
// rowid is nil. Old copies of rows may be among them.
func (r *rawFile) rows(each func(rowid int64, row []any) error) error {
	page := make([]byte, rawPageSize)
	for n := uint32(1); n <= r.pages && n != 0; n++ {
		if !r.page(n, page) {
			continue
		}
		if err := r.leaf(n, page, each); err != nil {
			return err
		}
	}
	return nil
}

func (r *rawFile) leaf(n uint32, page []byte, each func(rowid int64, row []any) error) error {
	head := 0
	if n == 1 {
		head = rawHeader
	}
	if page[head] != rawLeaf {
		return nil
	}
	cells := int(binary.BigEndian.Uint16(page[head+3:]))
	for i := range min(cells, (rawPageSize-head-8)/2) {
		at := int(binary.BigEndian.Uint16(page[head+8+2*i:]))
		if at < head+8 || at >= rawPageSize {
			continue
		}
		if rowid, row, ok := r.cell(page[at:]); ok {
			if err := each(rowid, row); err != nil {
				return err
			}
		}
	}
	return nil
}

// cell reads one cell of a table's leaf.
func (r *rawFile) cell(b []byte) (rowid int64, row []any, ok bool) {
	size, n := rawVarint(b)
	id, m := rawVarint(b[n:])
	if n == 0 || m == 0 || size > rawRecord {
		return 0, nil, false
	}
	payload, ok := r.payload(b[n+m:], int(size))
	if !ok {
		return 0, nil, false
	}
	row, ok = rawRow(payload)
	return int64(id), row, ok
}

// payload puts a record together that may go on on other pages.
func (r *rawFile) payload(b []byte, size int) ([]byte, bool) {
	const usable = rawPageSize
	local := size
	if most := usable - 35; size > most {
		least := (usable-12)*32/255 - 23
		if local = least + (size-least)%(usable-4); local > most {
			local = least
		}
	}
	if local > len(b) {
		return nil, false
	}
	if local == size {
		return b[:size], true
	}
	if len(b) < local+4 {
		return nil, false
	}
	whole := append(make([]byte, 0, size), b[:local]...)
	next := binary.BigEndian.Uint32(b[local:])
	page := make([]byte, rawPageSize)
	for len(whole) < size { // each page adds something, so that this ends
		if !r.page(next, page) {
			return nil, false
		}
		next = binary.BigEndian.Uint32(page)
		whole = append(whole, page[4:4+min(usable-4, size-len(whole))]...)
	}
	return whole, true
}

// rawRow decodes a record.
func rawRow(b []byte) (row []any, ok bool) {
	size, n := rawVarint(b)
	if n == 0 || size > uint64(len(b)) || size < uint64(n) {
		return nil, false
	}
	types, body := b[n:size], b[size:]
	for len(types) > 0 {
		t, n := rawVarint(types)
		if n == 0 {
			return nil, false
		}
		types = types[n:]
		v, used, ok := rawValue(t, body)
		if !ok {
			return nil, false
		}
		row, body = append(row, v), body[used:]
	}
	return row, len(row) > 0
}

// rawValue decodes one value of a serial type.
func rawValue(t uint64, b []byte) (v any, used int, ok bool) {
	widths := [...]int{0, 1, 2, 3, 4, 6, 8, 8, 0, 0}
	switch {
	case t < uint64(len(widths)):
		if used = widths[t]; used > len(b) {
			return nil, 0, false
		}
		switch t {
		case 0:
			return nil, 0, true
		case 7:
			return math.Float64frombits(binary.BigEndian.Uint64(b)), used, true
		case 8, 9:
			return int64(t - 8), 0, true
		}
		n := int64(int8(b[0]))
		for _, c := range b[1:used] {
			n = n<<8 | int64(c)
		}
		return n, used, true
	case t < 12 || (t-12)/2 > uint64(len(b)):
		return nil, 0, false
	}
	used = int((t - 12) / 2)
	if t%2 == 1 {
		return string(b[:used]), used, true
	}
	return append([]byte{}, b[:used]...), used, true
}

// rawVarint gives SQLite's variable-length integer and its length, 0 if b ends within.
func rawVarint(b []byte) (v uint64, n int) {
	for n < len(b) && n < 8 {
		v = v<<7 | uint64(b[n]&0x7f)
		if n++; b[n-1] < 0x80 {
			return v, n
		}
	}
	if n == 8 && len(b) > 8 {
		return v<<8 | uint64(b[8]), 9
	}
	return 0, 0
}
