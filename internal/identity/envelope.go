package identity

import (
	"bytes"
	"fmt"

	"github.com/libp2p/go-libp2p/core/record"
)

// signedRecord is a payload whose signer must be an identity it names.
type signedRecord interface {
	record.Record
	signer() ID
}

// seal signs rec, which must name the key's identity, as a libp2p envelope
// (github.com/libp2p/specs, RFC 0002).
func seal(rec signedRecord, key Key) ([]byte, error) {
	if key.IsZero() || key.ID() != rec.signer() {
		return nil, fmt.Errorf("cannot sign: %w", ErrSigner)
	}
	env, err := record.Seal(rec, key.priv)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	raw, err := env.Marshal()
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	return raw, nil
}

// open checks everything about an envelope that needs no clock and no memory,
// and fills rec. Key and payload type are compared before the signature is
// looked at, the signer after: ConsumeTypedEnvelope does neither.
// The bytes must be exactly what seal makes, so that one signature has one form.
func open(raw []byte, rec signedRecord) error {
	env, err := record.UnmarshalEnvelope(raw)
	if err != nil {
		return fmt.Errorf("%w: not a signed envelope", ErrMalformed)
	}
	signer, err := FromPublicKey(env.PublicKey)
	if err != nil {
		return err
	}
	if !bytes.Equal(env.PayloadType, rec.Codec()) {
		return fmt.Errorf("%w: want %q", ErrPayloadType, rec.Codec())
	}
	if again, err := env.Marshal(); err != nil || !bytes.Equal(again, raw) {
		return fmt.Errorf("%w: the envelope has an unusual form", ErrMalformed)
	}
	if err := rec.UnmarshalRecord(env.RawPayload); err != nil {
		return err
	}
	if rec.signer() != signer || !signer.onCurve() {
		return ErrSigner
	}
	if _, err := record.ConsumeTypedEnvelope(raw, rec); err != nil {
		return fmt.Errorf("%w: the signature does not verify", ErrSigner)
	}
	return nil
}
