// Package backup writes and reads backups of a daemon's state folder: one tar file,
// of regular files of mode 0600 in this order:
//
//	fastn-backup.json                      what this is: About
//	messages.db, fastn.db                  consistent copies of the databases
//	keystore/node.key                      keys, as the keystore has them
//	keystore/identities/UID/ID52.key
//	SHA256SUMS                             of all those before, for sha256sum -c
//
// Whoever reads one has every key of the machine.
package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"syscall"
	"time"
)

const (
	// Format is the number of what is described above.
	Format = 1

	aboutName = "fastn-backup.json"
	sumsName  = "SHA256SUMS"
	keystore  = "keystore"
	// maxKey bounds a key's file, maxText the others that are read into memory.
	maxKey  = 64 << 10
	maxText = 64 << 20
)

// About tells what a backup is of.
type About struct {
	Format  int       `json:"format"`
	Version string    `json:"version"` // of the fastnd that made it
	Node    string    `json:"node"`    // id52 of the node's key
	Created time.Time `json:"created"`
}

// databases are the names of those that a backup has, in their order.
func databases() []string { return []string{"messages.db", "fastn.db"} }

// keyName is what a key may be called.
var keyName = regexp.MustCompile(`^keystore/(node\.key|identities/(0|[1-9][0-9]{0,9})/[0-9a-v]{52}\.key)$`)

// ErrSink wraps an error of the file that a backup is written to.
var ErrSink = errors.New("cannot write the backup")

// Writer writes one backup: NewWriter, Database for each, Keys, Close.
type Writer struct {
	ctx     context.Context
	tar     *tar.Writer
	created time.Time
	sums    bytes.Buffer
	size    int64
}

// NewWriter begins a backup. Its methods fail when ctx ends.
func NewWriter(ctx context.Context, w io.Writer, about About) (*Writer, error) {
	about.Format = Format
	b := &Writer{ctx: ctx, created: about.Created.Truncate(time.Second)}
	b.tar = tar.NewWriter(&sink{b, w})
	text, err := json.Marshal(about)
	if err != nil {
		return nil, err
	}
	return b, b.add(aboutName, bytes.NewReader(append(text, '\n')), int64(len(text)+1))
}

// sink is the file written to.
type sink struct {
	b *Writer
	w io.Writer
}

func (s *sink) Write(p []byte) (int, error) {
	if err := s.b.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	s.b.size += int64(n)
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err // the file came as a descriptor: it has no name here
	}
	if err != nil {
		return n, fmt.Errorf("%w: %w", ErrSink, err)
	}
	return n, nil
}

func (b *Writer) add(name string, r io.Reader, size int64) error {
	if err := b.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: b.created}); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(b.tar, sum), io.LimitReader(r, size))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%s ended after %d of %d bytes", name, n, size)
	}
	fmt.Fprintf(&b.sums, "%x  %s\n", sum.Sum(nil), name)
	return nil
}

// Database adds the copy of a database that lies at file.
func (b *Writer) Database(name, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return b.add(name, f, info.Size())
}

// Keys adds the keys in folder dir, the state folder, and tells how many. Skipped
// are files that the keystore would refuse for what they are or who may read
// them, by their names in the backup.
func (b *Writer) Keys(dir string) (n int, skipped []string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, nil, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), keystore, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path.Ext(name) != ".key" {
			return err
		}
		data, err := readKey(root, name)
		switch {
		case errors.Is(err, fs.ErrNotExist): // removed meanwhile
			return nil
		case err != nil:
			return err
		case data == nil || !keyName.MatchString(name):
			skipped = append(skipped, name)
			return nil
		}
		n++
		return b.add(name, bytes.NewReader(data), int64(len(data)))
	})
	return n, skipped, err
}

// readKey gives a key's bytes, nil for what a restored keystore should not hold as
// if it were private.
func readKey(root *os.Root, name string) ([]byte, error) {
	info, err := root.Lstat(name)
	if err != nil || !private(info) {
		return nil, err
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	opened, err := f.Stat()
	if err != nil || !os.SameFile(info, opened) {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxKey))
}

func private(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && info.Mode().IsRegular() && info.Mode().Perm()&0o077 == 0 && info.Size() < maxKey &&
		st.Nlink == 1 && int(st.Uid) == os.Geteuid()
}

// Close writes the sums and ends the backup; it tells its size in bytes.
func (b *Writer) Close() (int64, error) {
	sums := b.sums.Bytes()
	if err := b.add(sumsName, bytes.NewReader(sums), int64(len(sums))); err != nil {
		return b.size, err
	}
	return b.size, b.tar.Close()
}
