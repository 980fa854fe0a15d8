package messages

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/fastn-stack/fastnd/internal/identity"
)

type digest = [sha256.Size]byte

// fields are hashed with their lengths, so that no two lists give the same bytes.
type fields []byte

func (f *fields) text(s string) {
	*f = binary.AppendUvarint(*f, uint64(len(s)))
	*f = append(*f, s...)
}

func (f *fields) bytes(b []byte) {
	*f = binary.AppendUvarint(*f, uint64(len(b)))
	*f = append(*f, b...)
}

func (f *fields) id(id identity.ID) { *f = append(*f, id[:]...) }

func (f *fields) number(n int64) { *f = binary.BigEndian.AppendUint64(*f, uint64(n)) }

// contentOf is over what the receiver gets: it tells a retry from a conflict
// even when the data is gone.
func contentOf(m *Message) digest {
	f := make(fields, 0, 128+len(m.Data))
	f.id(m.To)
	f.text(m.Protocol)
	f.text(m.Instance)
	f.bytes(m.Data)
	return sha256.Sum256(f)
}

// digestOf is over content and the columns of a row that never change; last is
// when it expires or was received.
func digestOf(box string, m *Message, size, last int64, content digest) digest {
	f := make(fields, 0, 320)
	f.text(box)
	f.id(m.From)
	f.id(m.To)
	f.text(m.Protocol)
	f.text(m.Instance)
	f.text(m.ID)
	f.number(size)
	f.number(m.Created.UnixMicro())
	f.number(last)
	f.bytes(content[:])
	return sha256.Sum256(f)
}

// hash stands for an identity and texts in indexes. That two have the same one
// is not to be expected before some 10⁹ rows; who makes that happen finds his own
// message in conflict.
func hash(of identity.ID, texts ...string) int64 {
	f := make(fields, 0, 160)
	f.id(of)
	for _, t := range texts {
		f.text(t)
	}
	h := sha256.Sum256(f)
	return int64(binary.BigEndian.Uint64(h[:]))
}

// hash stands for the lane.
func (l Lane) hash() int64 { return hash(l.From, string(l.To[:]), l.Protocol, l.Instance) }

// short stands for an identity: it is a random key's beginning.
func short(id identity.ID) int64 { return int64(binary.BigEndian.Uint64(id[:])) }
