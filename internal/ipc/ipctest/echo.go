package ipctest

import (
	"context"
	"encoding/json"
	"io"

	"github.com/fastn-stack/fastnd/internal/router"
	"github.com/fastn-stack/fastnd/service/api"
)

// Echo answers {"message":…} with {"echoed":…}, and a stream with its own bytes.
func Echo(_ context.Context, r *router.Request) (json.RawMessage, error) {
	if r.Kind == router.Stream {
		return nil, echoStream(r)
	}
	var args struct {
		Message string `json:"message"`
	}
	if err := api.DecodeArgs(r.Payload, &args); err != nil {
		return nil, err
	}
	if args.Message == "" {
		return nil, api.Errorf(api.CodeBadRequest, "the message is empty")
	}
	return json.Marshal(map[string]string{"echoed": "Echo: " + args.Message})
}

func echoStream(r *router.Request) error {
	conn, err := r.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.Copy(conn, conn); err != nil {
		return err
	}
	return conn.CloseWrite()
}
