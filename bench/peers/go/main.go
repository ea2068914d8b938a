// The same two routes with Go's net/http.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
)

type message struct {
	Message *string `json:"message"`
}

type digest struct {
	Digest string `json:"digest"`
}

type failure struct {
	Error string `json:"error"`
}

var (
	lock     sync.RWMutex
	messages = map[string]string{}
)

// answer writes body as JSON in a line.
func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.Encode(body)
}

// put stores the text; true when it is new.
func put(name, text string) bool {
	lock.Lock()
	defer lock.Unlock()
	_, known := messages[name]
	messages[name] = text
	return !known
}

func postMessage(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		answer(w, http.StatusMethodNotAllowed, failure{"Method not allowed."})
		return
	}
	var body message
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || body.Message == nil {
		answer(w, http.StatusBadRequest, failure{"A message is needed."})
		return
	}
	sum := sha256.Sum256([]byte(*body.Message))
	name := hex.EncodeToString(sum[:])
	status := http.StatusOK
	if put(name, *body.Message) {
		status = http.StatusCreated
	}
	answer(w, status, digest{name})
}

func getMessage(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		answer(w, http.StatusMethodNotAllowed, failure{"Method not allowed."})
		return
	}
	lock.RLock()
	text, known := messages[strings.TrimPrefix(r.URL.Path, "/messages/")]
	lock.RUnlock()
	if known {
		answer(w, http.StatusOK, message{&text})
	} else {
		answer(w, http.StatusNotFound, failure{"Message not found."})
	}
}

func main() {
	http.HandleFunc("/messages", postMessage)
	http.HandleFunc("/messages/", getMessage)
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
