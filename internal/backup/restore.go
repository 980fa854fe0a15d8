package backup

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"

	"github.com/fastn-stack/fastnd/service/api"
)

// unpacking is where a restore puts everything before it is known to be whole.
const unpacking = ".restore"

// Restore makes of a backup what was in the state folder, in dir. dir must exist and
// hold nothing but files whose names are in beside, which stay, and what an
// earlier Restore left that was interrupted. Unless all is there and as it was
// written, dir stays empty.
func Restore(r io.Reader, dir string, beside ...string) (About, error) {
	if err := empty(dir, append(beside, unpacking)); err != nil {
		return About{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return About{}, err
	}
	defer root.Close()
	if err := root.RemoveAll(unpacking); err != nil {
		return About{}, err
	}
	if err := root.Mkdir(unpacking, 0o700); err != nil {
		return About{}, err
	}
	about, err := restore(r, root)
	return about, errors.Join(err, root.RemoveAll(unpacking))
}

func empty(dir string, beside []string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(beside, e.Name()) {
			return api.Errorf(api.CodeConflict, "%s is not empty: it has %s", dir, e.Name()).
				WithHint("a backup is restored into an empty folder only; move what is there away: mv %s %s", api.ShellQuote(dir), api.ShellQuote(dir+".old"))
		}
	}
	return nil
}

func restore(r io.Reader, root *os.Root) (About, error) {
	work, err := root.OpenRoot(unpacking)
	if err != nil {
		return About{}, err
	}
	defer work.Close()
	u := &unpacker{in: tar.NewReader(r), to: work}
	if err := u.all(); err != nil {
		return About{}, err
	}
	if err := u.end(r); err != nil {
		return About{}, err
	}
	if err := syncFolders(work); err != nil {
		return About{}, err
	}
	// The keys last: without them a daemon would take what is there for a new
	// machine's, and with them all the rest is there.
	for _, name := range append(databases(), keystore) {
		if err := root.Rename(path.Join(unpacking, name), name); err != nil {
			return About{}, err
		}
	}
	return u.about, syncFolder(root, ".")
}

// unpacker reads one backup.
type unpacker struct {
	in    *tar.Reader
	to    *os.Root
	about About
	sums  bytes.Buffer // of what was read, as SHA256SUMS has them
}

func (u *unpacker) all() error {
	for _, name := range append([]string{aboutName}, databases()...) {
		if err := u.expect(name); err != nil {
			return err
		}
	}
	node := false
	for {
		h, err := u.next()
		if err != nil {
			return err
		}
		if h.Name == sumsName {
			break
		}
		if !keyName.MatchString(h.Name) || h.Size > maxKey {
			return notOne("it has a file %q", h.Name)
		}
		node = node || h.Name == keystore+"/node.key"
		if err := u.to.MkdirAll(path.Dir(h.Name), 0o700); err != nil {
			return err
		}
		if err := u.write(h); err != nil {
			return err
		}
	}
	sums, err := io.ReadAll(io.LimitReader(u.in, maxText))
	switch {
	case err != nil:
		return u.failed(err)
	case !bytes.Equal(sums, u.sums.Bytes()):
		return api.Errorf(api.CodeBadRequest, "the backup is damaged: its content is not what was written").
			WithHint("use another one; nothing was restored")
	case !node:
		return notOne("it has no key of a node")
	}
	return nil
}

// end refuses what stands behind the sums, which no sum covers: r is what u.in reads.
// Only the zeros are left that tar fills its last record with.
func (u *unpacker) end(r io.Reader) error {
	switch h, err := u.in.Next(); {
	case err == nil:
		return notOne("it has a file %q behind its end", h.Name)
	case !errors.Is(err, io.EOF):
		return u.failed(err)
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if bytes.ContainsFunc(buf[:n], func(c rune) bool { return c != 0 }) {
			return notOne("something stands behind its end")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return u.failed(err)
		}
	}
}

func notOne(format string, args ...any) error {
	return api.Errorf(api.CodeBadRequest, "this is no backup of fastnd: "+format, args...).WithHint(`name a file that "fastn daemon backup" made`)
}

// failed explains an error of the reader.
func (u *unpacker) failed(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return api.Errorf(api.CodeBadRequest, "the backup is damaged: it ends too early").WithHint("use another one; nothing was restored")
	case errors.Is(err, tar.ErrHeader):
		return notOne("%v", err)
	}
	return fmt.Errorf("read the backup: %w", err)
}

func (u *unpacker) next() (*tar.Header, error) {
	h, err := u.in.Next()
	if err != nil {
		return nil, u.failed(err)
	}
	if h.Typeflag != tar.TypeReg {
		return nil, notOne("%q is no file", h.Name)
	}
	return h, nil
}

// expect reads what must come now.
func (u *unpacker) expect(name string) error {
	h, err := u.next()
	if err != nil {
		return err
	}
	if h.Name != name {
		return notOne("it has a file %q", h.Name)
	}
	if name != aboutName {
		return u.write(h)
	}
	text, err := io.ReadAll(io.LimitReader(u.in, maxText))
	if err != nil {
		return u.failed(err)
	}
	if json.Unmarshal(text, &u.about) != nil {
		return notOne("%s is no JSON", name)
	}
	if u.about.Format != Format {
		return api.Errorf(api.CodeUnsupported, "the backup has format %d, this fastnd knows %d", u.about.Format, Format).
			WithHint("use fastnd %s, which made it, or a newer one", u.about.Version)
	}
	fmt.Fprintf(&u.sums, "%x  %s\n", sha256.Sum256(text), name)
	return nil
}

// write makes a file, whatever the backup says of its mode and owner.
func (u *unpacker) write(h *tar.Header) error {
	f, err := u.to.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return notOne("it has %q twice", h.Name)
	}
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), u.in)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = u.failed(err)
	}
	if err == nil {
		err = f.Sync()
	}
	fmt.Fprintf(&u.sums, "%x  %s\n", sum.Sum(nil), h.Name)
	return errors.Join(err, f.Close())
}

// syncFolders makes what was unpacked last.
func syncFolders(root *os.Root) error {
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return syncFolder(root, name)
	})
}

func syncFolder(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
