package sqlite

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
)

// walScan is what a write-ahead log holds, read as SQLite's recovery reads it
// (https://www.sqlite.org/fileformat2.html#walformat). SQLite stops at the first
// bad frame without a word, however many commits follow it.
type walScan struct {
	pageSize int
	pages    uint32           // of the database after the last good commit
	images   map[uint32]int64 // where in the log each page's last committed image is
	// lost counts commits at and after the first bad frame. One may be a
	// transaction that a crash cut short and that was never acknowledged.
	lost int
}

const (
	walHeaderSize   = 32
	frameHeaderSize = 24
	walMagic        = 0x377f0682 // with 1 added if checksums are of big-endian words
)

// readWAL scans the log at path; none, or an empty one, gives the zero walScan.
func readWAL(path string) (w walScan, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return w, nil
	}
	if err != nil {
		return w, err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 1<<20)
	head := make([]byte, walHeaderSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return w, ignoreEOF(err)
	}
	sum := walSum{order: binary.LittleEndian}
	if head[3]&1 != 0 {
		sum.order = binary.BigEndian
	}
	sum.add(head[:24])
	good := binary.BigEndian.Uint32(head)&^1 == walMagic && sum.is(head[24:32])
	w.pageSize = int(binary.BigEndian.Uint32(head[8:]))
	if !good || w.pageSize < 512 || w.pageSize > 65536 {
		good, w.pageSize = false, 4096
	}
	return w, w.readFrames(r, head[16:24], sum, good)
}

func (w *walScan) readFrames(r io.Reader, salt []byte, sum walSum, good bool) error {
	w.images = make(map[uint32]int64)
	open := make(map[uint32]int64) // of the transaction that is being read
	frame := make([]byte, frameHeaderSize+w.pageSize)
	for at := int64(walHeaderSize); ; at += int64(len(frame)) {
		if _, err := io.ReadFull(r, frame); err != nil {
			return ignoreEOF(err)
		}
		if !good && at == walHeaderSize { // the header is bad
			salt = append([]byte(nil), frame[8:16]...)
		}
		ours := string(frame[8:16]) == string(salt)
		size := binary.BigEndian.Uint32(frame[4:])
		if good {
			sum.add(frame[:8])
			sum.add(frame[frameHeaderSize:])
			good = ours && sum.is(frame[16:24])
		}
		switch {
		case !good && ours && size != 0:
			w.lost++
		case good:
			open[binary.BigEndian.Uint32(frame)] = at + frameHeaderSize
			if size == 0 {
				continue
			}
			w.pages = size
			for page, image := range open {
				w.images[page] = image
			}
			clear(open)
		}
	}
}

func ignoreEOF(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}

// walSum is the log's running checksum.
type walSum struct {
	order  binary.ByteOrder
	s0, s1 uint32
}

func (s *walSum) add(b []byte) {
	for i := 0; i+8 <= len(b); i += 8 {
		s.s0 += s.order.Uint32(b[i:]) + s.s1
		s.s1 += s.order.Uint32(b[i+4:]) + s.s0
	}
}

func (s *walSum) is(b []byte) bool {
	return binary.BigEndian.Uint32(b) == s.s0 && binary.BigEndian.Uint32(b[4:]) == s.s1
}

// fold writes the committed pages of the log at path into the database file f.
func (w walScan) fold(path string, f *os.File) error {
	if len(w.images) == 0 {
		return nil
	}
	log, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	page := make([]byte, w.pageSize)
	for number, at := range w.images {
		if _, err := log.ReadAt(page, at); err != nil {
			return err
		}
		if _, err := f.WriteAt(page, int64(number-1)*int64(w.pageSize)); err != nil {
			return err
		}
	}
	return nil
}
