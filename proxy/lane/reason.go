package lane

import (
	"fmt"
	"net/http"
)

// Reason says why the gate refused a connection's input. It is the label of the metric and the body of the answer.
type Reason uint8

// The reasons. None is not a refusal.
const (
	None Reason = iota
	BadRequestLine
	BadMethod
	BadTarget
	BadVersion
	NotForUs
	BareLF
	BareCR
	BadCharacter
	ObsFold
	EmptyName
	BadName
	SpaceBeforeColon
	NoHost
	ManyHosts
	BadHost
	BadLength
	LengthsDiffer
	LengthAndCoding
	BadCoding
	CodingOn10
	BadChunk
	BadTrailer
	HeadTooLarge
	TargetTooLong
	HeadTimeout
	reasons // how many there are
)

// reasonTexts is indexed by Reason: a metric label, a status and a sentence for the client.
var reasonTexts = [reasons]struct {
	label  string
	status int
	text   string
}{
	None:             {"none", 0, ""},
	BadRequestLine:   {"request_line", http.StatusBadRequest, "malformed request line"},
	BadMethod:        {"method", http.StatusBadRequest, "malformed method"},
	BadTarget:        {"target", http.StatusBadRequest, "malformed request target"},
	BadVersion:       {"version", http.StatusHTTPVersionNotSupported, "this server speaks HTTP/1.0 and HTTP/1.1 here"},
	NotForUs:         {"connect", http.StatusBadRequest, "this server opens no tunnels"},
	BareLF:           {"bare_lf", http.StatusBadRequest, "line ends in a bare LF"},
	BareCR:           {"bare_cr", http.StatusBadRequest, "CR within a line"},
	BadCharacter:     {"character", http.StatusBadRequest, "control character in a field value"},
	ObsFold:          {"obs_fold", http.StatusBadRequest, "folded field line"},
	EmptyName:        {"empty_name", http.StatusBadRequest, "field line without a name"},
	BadName:          {"name", http.StatusBadRequest, "malformed field name"},
	SpaceBeforeColon: {"space_before_colon", http.StatusBadRequest, "whitespace before the colon of a field"},
	NoHost:           {"no_host", http.StatusBadRequest, "no Host"},
	ManyHosts:        {"many_hosts", http.StatusBadRequest, "more than one Host"},
	BadHost:          {"host", http.StatusBadRequest, "malformed Host"},
	BadLength:        {"content_length", http.StatusBadRequest, "malformed Content-Length"},
	LengthsDiffer:    {"content_lengths_differ", http.StatusBadRequest, "Content-Length fields differ"},
	LengthAndCoding:  {"content_length_and_transfer_encoding", http.StatusBadRequest, "both Content-Length and Transfer-Encoding"},
	BadCoding:        {"transfer_encoding", http.StatusBadRequest, "Transfer-Encoding is not exactly chunked"},
	CodingOn10:       {"transfer_encoding_on_http10", http.StatusBadRequest, "Transfer-Encoding with HTTP/1.0"},
	BadChunk:         {"chunk", http.StatusBadRequest, "malformed chunk"},
	BadTrailer:       {"trailer", http.StatusBadRequest, "malformed trailer"},
	HeadTooLarge:     {"head_too_large", http.StatusRequestHeaderFieldsTooLarge, "request head is too large"},
	TargetTooLong:    {"target_too_long", http.StatusRequestURITooLong, "request target is too long"},
	HeadTimeout:      {"head_timeout", http.StatusRequestTimeout, "request head took too long"},
}

// String is the metric label.
func (r Reason) String() string {
	if r < reasons {
		return reasonTexts[r].label
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Status is the HTTP status that answers it.
func (r Reason) Status() int { return reasonTexts[r].status }

// Refused is the error of reading a request body whose framing broke. The connection is of no more use: every
// later Read gives the same error. Callers find it with errors.As and answer with Reason.Status.
type Refused struct{ Reason Reason }

// Error is a sentence for the log.
func (e *Refused) Error() string { return "request refused: " + reasonTexts[e.Reason].text }
