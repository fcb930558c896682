/* A PKCS#11 module that passes everything on to a real one and misbehaves on demand.
 *
 * FAULT_MODULE names the real library, FAULT_DIRECTORY a folder of switches: a file's presence turns a fault on.
 *   logins                  one byte is appended at each C_Login
 *   flags                   a decimal number that is or-ed into CK_TOKEN_INFO.flags
 *   crash-login             SIGSEGV inside C_Login
 *   crash-generate-before   SIGSEGV inside C_GenerateKeyPair, before and
 *   crash-generate-after    after the real one has stored both halves
 *   bad-signature           C_Sign answers with one bit wrong
 *   session-lost            C_SignInit answers CKR_SESSION_HANDLE_INVALID, once
 * Indices and offsets are those of PKCS#11 v2.40, pkcs11f.h and pkcs11t.h. */
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long CK_RV;
typedef unsigned long CK_ULONG;
typedef unsigned char CK_BYTE;
typedef CK_RV (*any)(void);
enum { GET_FUNCTION_LIST = 3, GET_TOKEN_INFO = 6, LOGIN = 18, SIGN_INIT = 42, SIGN = 43, GENERATE_KEY_PAIR = 59, COUNT = 68 };
enum { TOKEN_FLAGS_OFFSET = 96, CKR_SESSION_HANDLE_INVALID = 0xB3 };
struct function_list { CK_BYTE version[2]; any functions[COUNT]; };

static struct function_list real_list, our_list;

static const char *path_of(const char *name) {
    static char path[4096];
    snprintf(path, sizeof path, "%s/%s", getenv("FAULT_DIRECTORY"), name);
    return path;
}

static int on(const char *name) { return access(path_of(name), F_OK) == 0; }

static void crash_if(const char *name) {
    if (on(name)) {
        signal(SIGSEGV, SIG_DFL);
        raise(SIGSEGV);
    }
}

static CK_RV get_token_info(CK_ULONG slot, CK_BYTE *info) {
    CK_RV rv = ((CK_RV(*)(CK_ULONG, CK_BYTE *))real_list.functions[GET_TOKEN_INFO])(slot, info);
    FILE *file = fopen(path_of("flags"), "r");
    CK_ULONG extra = 0, flags;
    if (file) {
        if (fscanf(file, "%lu", &extra) != 1) extra = 0;
        fclose(file);
    }
    memcpy(&flags, info + TOKEN_FLAGS_OFFSET, sizeof flags);
    flags |= extra;
    memcpy(info + TOKEN_FLAGS_OFFSET, &flags, sizeof flags);
    return rv;
}

static CK_RV login(CK_ULONG session, CK_ULONG user, CK_BYTE *pin, CK_ULONG length) {
    int file = open(path_of("logins"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (file < 0 || write(file, "x", 1) != 1) abort();
    close(file);
    crash_if("crash-login");
    return ((CK_RV(*)(CK_ULONG, CK_ULONG, CK_BYTE *, CK_ULONG))real_list.functions[LOGIN])(session, user, pin, length);
}

static CK_RV sign_init(CK_ULONG session, void *mechanism, CK_ULONG key) {
    if (on("session-lost")) {
        unlink(path_of("session-lost"));
        return CKR_SESSION_HANDLE_INVALID;
    }
    return ((CK_RV(*)(CK_ULONG, void *, CK_ULONG))real_list.functions[SIGN_INIT])(session, mechanism, key);
}

static CK_RV sign(CK_ULONG session, CK_BYTE *data, CK_ULONG length, CK_BYTE *signature, CK_ULONG *signature_length) {
    CK_RV rv = ((CK_RV(*)(CK_ULONG, CK_BYTE *, CK_ULONG, CK_BYTE *, CK_ULONG *))real_list.functions[SIGN])(
        session, data, length, signature, signature_length);
    if (rv == 0 && signature && on("bad-signature")) signature[*signature_length - 1] ^= 1;
    return rv;
}

static CK_RV generate_key_pair(CK_ULONG session, void *mechanism, void *public, CK_ULONG public_count, void *private,
                               CK_ULONG private_count, CK_ULONG *public_key, CK_ULONG *private_key) {
    crash_if("crash-generate-before");
    CK_RV rv = ((CK_RV(*)(CK_ULONG, void *, void *, CK_ULONG, void *, CK_ULONG, CK_ULONG *, CK_ULONG *))
                    real_list.functions[GENERATE_KEY_PAIR])(session, mechanism, public, public_count, private,
                                                            private_count, public_key, private_key);
    crash_if("crash-generate-after");
    return rv;
}

CK_RV C_GetFunctionList(struct function_list **list) {
    struct function_list *found;
    void *library = dlopen(getenv("FAULT_MODULE"), RTLD_NOW | RTLD_LOCAL);
    if (!library) return 5; /* CKR_GENERAL_ERROR */
    CK_RV (*get)(struct function_list **) = (CK_RV(*)(struct function_list **))dlsym(library, "C_GetFunctionList");
    CK_RV rv = get(&found);
    if (rv) return rv;
    real_list = our_list = *found;
    our_list.functions[GET_FUNCTION_LIST] = (any)C_GetFunctionList;
    our_list.functions[GET_TOKEN_INFO] = (any)get_token_info;
    our_list.functions[LOGIN] = (any)login;
    our_list.functions[SIGN_INIT] = (any)sign_init;
    our_list.functions[SIGN] = (any)sign;
    our_list.functions[GENERATE_KEY_PAIR] = (any)generate_key_pair;
    *list = &our_list;
    return 0;
}
