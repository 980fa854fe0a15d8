package p2p

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/fastn-stack/fastnd/internal/wire"
)

// Every frame that may have a payload, or is answered, counts for its sender: one
// that nobody thought of would be a way around all budgets.
func TestEveryFrameCounts(t *testing.T) {
	free := map[protoreflect.Name]bool{"cancel": true, "reply": true, "aborted": true}
	bodies := (&wire.Frame{}).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
	if bodies.Len() < 8 {
		t.Fatalf("only %d kinds of frames were found", bodies.Len())
	}
	for i := range bodies.Len() {
		field := bodies.Get(i)
		f := &wire.Frame{}
		body := f.ProtoReflect().Mutable(field).Message()
		if from := body.Descriptor().Fields().ByName("from"); from != nil {
			body.Set(from, protoreflect.ValueOfBytes([]byte("who")))
		}
		from, counts := senderOf(f)
		if counts == free[field.Name()] {
			t.Errorf("%s: counts is %v", field.Name(), counts)
		}
		if counts && string(from) != "who" {
			t.Errorf("%s: its sender is %q", field.Name(), from)
		}
	}
	if _, counts := senderOf(&wire.Frame{}); !counts {
		t.Error("a frame without a body is free")
	}
}
