"""Calls IAM, KMS, Logs, SSM, Service Quotas, EKS and the Kubernetes API of the sandbox with boto3."""

import base64, itertools, json, sys, urllib.parse, urllib.request, urllib.error
import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from control import URL, advance

A = "111122223333"
R = "us-east-1"
failures, checks, tokens = [], 0, itertools.count()


def client(service, key=A, region=R):
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=URL,
        aws_access_key_id=key,
        aws_secret_access_key="x",
        config=Config(retries={"max_attempts": 0}, parameter_validation=False),
    )


def ok(cond, what):
    global checks
    checks += 1
    if not cond:
        failures.append(what)
        print("FAIL", what)


def eq(a, b, what):
    ok(a == b, f"{what}: {a!r} != {b!r}")


def err(code, text, call, **kw):
    try:
        call(**kw)
    except ClientError as e:
        got = e.response["Error"]
        ok(
            got["Code"] == code and text in got["Message"],
            f"{call.__name__}: wanted {code} {text!r}, got {got['Code']} {got['Message']!r}",
        )
        return e.response
    ok(False, f"{call.__name__}: wanted {code} {text!r}, got success")


def wait(seconds):
    advance(seconds)


def until(call, wanted, seconds, what):
    """Moves the clock on until `call` gives `wanted`, by `seconds` at the most."""
    for _ in range(0, seconds + 10, 10):
        got = call()
        if got == wanted:
            return
        advance(10)
    ok(False, f"{what}: still {got!r}, wanted {wanted!r}")


def trust(service, *more):
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": ["sts:AssumeRole", *more]}],
        }
    )


iam, kms, logs, ssm, sq, eks, ec2 = map(client, ["iam", "kms", "logs", "ssm", "service-quotas", "eks", "ec2"])


def test_iam():
    err(
        "ValidationError",
        "less than or equal to 64",
        iam.create_role,
        RoleName="a" * 65,
        AssumeRolePolicyDocument=trust("eks.amazonaws.com"),
    )
    err("MalformedPolicyDocument", "invalid Json", iam.create_role, RoleName="a", AssumeRolePolicyDocument="{")
    err(
        "MalformedPolicyDocument",
        "Invalid principal in policy",
        iam.create_role,
        RoleName="a",
        AssumeRolePolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": f"arn:aws:iam::{A}:role/no"}}
                ],
            }
        ),
    )
    err(
        "MalformedPolicyDocument",
        "prohibited field Resource",
        iam.create_role,
        RoleName="a",
        AssumeRolePolicyDocument=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": A}, "Resource": "*"}
                ],
            }
        ),
    )
    big = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": "sts:AssumeRole",
                    "Principal": {"AWS": A},
                    "Condition": {"StringEquals": {"aws:x": ["y" * 2000]}},
                }
            ],
        }
    )
    err("LimitExceeded", "ACLSizePerRole: 2048", iam.create_role, RoleName="a", AssumeRolePolicyDocument=big)
    err(
        "ValidationError",
        "tags",
        iam.create_role,
        RoleName="a",
        AssumeRolePolicyDocument=trust("eks.amazonaws.com"),
        Tags=[{"Key": "a", "Value": "b(c)"}],
    )
    err(
        "NoSuchEntity",
        "Scope ARN",
        iam.create_role,
        RoleName="a",
        AssumeRolePolicyDocument=trust("eks.amazonaws.com"),
        PermissionsBoundary=f"arn:aws:iam::{A}:policy/no",
    )
    t = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"AWS": [A]}}],
        }
    )
    r = iam.create_role(
        RoleName="one",
        Path="/x/y/",
        AssumeRolePolicyDocument=t,
        Description="d",
        MaxSessionDuration=7200,
        Tags=[{"Key": "k", "Value": "v w"}],
        PermissionsBoundary="arn:aws:iam::aws:policy/ReadOnlyAccess",
    )["Role"]
    eq(r["Arn"], f"arn:aws:iam::{A}:role/x/y/one", "role arn")
    eq(
        r["AssumeRolePolicyDocument"]["Statement"][0]["Principal"],
        {"AWS": f"arn:aws:iam::{A}:root"},
        "normalised principal",
    )
    ok(r["RoleId"].startswith("AROA") and len(r["RoleId"]) == 21, "role id")
    err(
        "EntityAlreadyExists",
        "Role with name one already exists.",
        iam.create_role,
        RoleName="one",
        AssumeRolePolicyDocument=t,
    )
    g = iam.get_role(RoleName="one")["Role"]
    eq(
        (g["Description"], g["MaxSessionDuration"], g["Tags"], g["PermissionsBoundary"]["PermissionsBoundaryArn"]),
        ("d", 7200, [{"Key": "k", "Value": "v w"}], "arn:aws:iam::aws:policy/ReadOnlyAccess"),
        "get role",
    )
    ok("Tags" not in iam.list_roles(PathPrefix="/x/")["Roles"][0], "ListRoles has no tags")
    iam.update_role(RoleName="one", Description="e")
    iam.tag_role(RoleName="one", Tags=[{"Key": "z", "Value": ""}])
    iam.untag_role(RoleName="one", TagKeys=["k"])
    eq(iam.list_role_tags(RoleName="one")["Tags"], [{"Key": "z", "Value": ""}], "role tags")
    iam.update_assume_role_policy(RoleName="one", PolicyDocument=trust("eks.amazonaws.com"))
    err(
        "NoSuchEntity",
        "does not exist or is not attachable",
        iam.attach_role_policy,
        RoleName="one",
        PolicyArn="arn:aws:iam::aws:policy/Nope",
    )
    for _ in range(2):
        iam.attach_role_policy(RoleName="one", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy")
    eq(len(iam.list_attached_role_policies(RoleName="one")["AttachedPolicies"]), 1, "attached")
    iam.put_role_policy(
        RoleName="one",
        PolicyName="in",
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}}
        ),
    )
    err(
        "MalformedPolicyDocument",
        "must contain resources",
        iam.put_role_policy,
        RoleName="one",
        PolicyName="x",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "s3:*"}}),
    )
    err(
        "MalformedPolicyDocument",
        "should not specify a principal",
        iam.put_role_policy,
        RoleName="one",
        PolicyName="x",
        PolicyDocument=trust("x.amazonaws.com"),
    )
    eq(iam.get_role_policy(RoleName="one", PolicyName="in")["PolicyDocument"]["Statement"]["Action"], "s3:*", "inline")
    eq(iam.list_role_policies(RoleName="one")["PolicyNames"], ["in"], "inline names")
    d = iam.get_account_authorization_details(Filter=["Role"])
    one = [x for x in d["RoleDetailList"] if x["RoleName"] == "one"][0]
    eq(
        (
            one["RolePolicyList"][0]["PolicyName"],
            one["AttachedManagedPolicies"][0]["PolicyName"],
            one["Tags"],
            one["PermissionsBoundary"]["PermissionsBoundaryArn"][-14:],
        ),
        ("in", "AmazonEKSClusterPolicy", [{"Key": "z", "Value": ""}], "ReadOnlyAccess"),
        "authorization details",
    )
    ok(isinstance(one["AssumeRolePolicyDocument"], dict) and one["InstanceProfileList"] == [], "details' documents")
    err("DeleteConflict", "detach all policies", iam.delete_role, RoleName="one")
    iam.detach_role_policy(RoleName="one", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy")
    err(
        "NoSuchEntity",
        "was not found",
        iam.detach_role_policy,
        RoleName="one",
        PolicyArn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
    )
    err("DeleteConflict", "must delete policies first", iam.delete_role, RoleName="one")
    iam.delete_role_policy(RoleName="one", PolicyName="in")
    err("NoSuchEntity", "role policy with name in", iam.get_role_policy, RoleName="one", PolicyName="in")
    p = iam.create_policy(
        PolicyName="p",
        Path="/q/",
        PolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        ),
    )["Policy"]
    iam.attach_role_policy(RoleName="one", PolicyArn=p["Arn"])
    err("DeleteConflict", "attached to entities", iam.delete_policy, PolicyArn=p["Arn"])
    eq(iam.list_entities_for_policy(PolicyArn=p["Arn"])["PolicyRoles"][0]["RoleName"], "one", "entities")
    eq(iam.get_policy(PolicyArn=p["Arn"])["Policy"]["AttachmentCount"], 1, "attachment count")
    eq(
        iam.get_policy_version(PolicyArn=p["Arn"], VersionId="v1")["PolicyVersion"]["Document"]["Statement"][0][
            "Action"
        ],
        "*",
        "version",
    )
    eq([x["PolicyName"] for x in iam.list_policies(Scope="Local")["Policies"]], ["p"], "local policies")
    n = sum(
        len(x["Policies"])
        for x in iam.get_paginator("list_policies").paginate(Scope="AWS", PaginationConfig={"PageSize": 7})
    )
    ok(n > 40, f"aws policies {n}")
    err(
        "LimitExceeded",
        "PoliciesPerRole: 10",
        lambda **k: [
            iam.attach_role_policy(RoleName="one", PolicyArn=x["Arn"])
            for x in iam.list_policies(Scope="AWS")["Policies"][:11]
        ],
    )
    for x in iam.list_attached_role_policies(RoleName="one")["AttachedPolicies"]:
        iam.detach_role_policy(RoleName="one", PolicyArn=x["PolicyArn"])
    iam.delete_policy(PolicyArn=p["Arn"])
    iam.delete_role_permissions_boundary(RoleName="one")
    iam.put_role_permissions_boundary(RoleName="one", PermissionsBoundary="arn:aws:iam::aws:policy/ReadOnlyAccess")
    iam.delete_role(RoleName="one")
    err("NoSuchEntity", "The role with name one cannot be found.", iam.get_role, RoleName="one")
    eq(
        iam.create_service_linked_role(AWSServiceName="autoscaling.amazonaws.com")["Role"]["Path"],
        "/aws-service-role/autoscaling.amazonaws.com/",
        "slr",
    )
    err(
        "InvalidInput",
        "has been taken in this account",
        iam.create_service_linked_role,
        AWSServiceName="autoscaling.amazonaws.com",
    )
    err("UnmodifiableEntity", "protected role", iam.delete_role, RoleName="AWSServiceRoleForAutoScaling")
    arn = iam.create_open_id_connect_provider(
        Url="https://oidc.eks.us-east-1.amazonaws.com/id/AB",
        ClientIDList=["sts.amazonaws.com"],
        Tags=[{"Key": "a", "Value": "b"}],
    )["OpenIDConnectProviderArn"]
    eq(arn, f"arn:aws:iam::{A}:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/AB", "oidc arn")
    err(
        "EntityAlreadyExists",
        "already exists",
        iam.create_open_id_connect_provider,
        Url="https://oidc.eks.us-east-1.amazonaws.com/id/AB",
    )
    iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID="c")
    iam.tag_open_id_connect_provider(OpenIDConnectProviderArn=arn, Tags=[{"Key": "c", "Value": "d"}])
    g = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    eq(
        (g["Url"], g["ClientIDList"], len(g["Tags"]), len(g["ThumbprintList"])),
        ("oidc.eks.us-east-1.amazonaws.com/id/AB", ["sts.amazonaws.com", "c"], 2, 1),
        "oidc",
    )
    iam.remove_client_id_from_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID="c")
    iam.update_open_id_connect_provider_thumbprint(OpenIDConnectProviderArn=arn, ThumbprintList=["0" * 40])
    iam.untag_open_id_connect_provider(OpenIDConnectProviderArn=arn, TagKeys=["c"])
    eq(
        iam.list_open_id_connect_provider_tags(OpenIDConnectProviderArn=arn)["Tags"],
        [{"Key": "a", "Value": "b"}],
        "oidc tags",
    )
    eq(iam.list_open_id_connect_providers()["OpenIDConnectProviderList"], [{"Arn": arn}], "oidc list")
    iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    err("NoSuchEntity", "not found for arn", iam.get_open_id_connect_provider, OpenIDConnectProviderArn=arn)
    iam.create_user(UserName="u")
    eq(iam.get_user(UserName="u")["User"]["Arn"], f"arn:aws:iam::{A}:user/u", "user")
    iam.delete_user(UserName="u")
    eq(iam.list_account_aliases()["AccountAliases"], [], "aliases")
    eq(
        client("iam", region="cn-north-1").create_role(
            RoleName="cn", AssumeRolePolicyDocument=trust("ec2.amazonaws.com.cn")
        )["Role"]["Arn"],
        f"arn:aws-cn:iam::{A}:role/cn",
        "partition",
    )
    iam.delete_role(RoleName="cn")
    eq(client("iam", key="999999999999").list_roles()["Roles"], [], "accounts apart")


def test_kms():
    k = kms.create_key(Description="d", Tags=[{"TagKey": "a", "TagValue": "b"}])["KeyMetadata"]
    eq(
        (k["KeyState"], k["KeySpec"], k["Arn"]),
        ("Enabled", "SYMMETRIC_DEFAULT", f"arn:aws:kms:{R}:{A}:key/{k['KeyId']}"),
        "key",
    )
    kms.create_alias(AliasName="alias/x", TargetKeyId=k["KeyId"])
    err("AlreadyExistsException", "already exists", kms.create_alias, AliasName="alias/x", TargetKeyId=k["KeyId"])
    err("NotFoundException", "is not found", kms.describe_key, KeyId="alias/none")
    eq(kms.describe_key(KeyId="alias/x")["KeyMetadata"]["KeyId"], k["KeyId"], "by alias")
    eq(kms.describe_key(KeyId=f"arn:aws:kms:{R}:{A}:alias/x")["KeyMetadata"]["KeyId"], k["KeyId"], "by alias arn")
    err("NotFoundException", "does not exist", kms.describe_key, KeyId="00000000-0000-0000-0000-000000000000")
    eq(kms.get_key_rotation_status(KeyId=k["KeyId"])["KeyRotationEnabled"], False, "rotation off")
    kms.enable_key_rotation(KeyId=k["KeyId"], RotationPeriodInDays=90)
    eq(kms.get_key_rotation_status(KeyId=k["Arn"])["RotationPeriodInDays"], 90, "rotation")
    err("ValidationException", "between 90", kms.enable_key_rotation, KeyId=k["KeyId"], RotationPeriodInDays=1)
    pol = json.loads(kms.get_key_policy(KeyId=k["KeyId"], PolicyName="default")["Policy"])
    eq(pol["Id"], "key-default-1", "default policy")
    lock = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": "logs.amazonaws.com"}, "Action": "kms:*", "Resource": "*"}
        ],
    }
    err(
        "MalformedPolicyDocumentException",
        "will not allow you to update the key policy",
        kms.put_key_policy,
        KeyId=k["KeyId"],
        Policy=json.dumps(lock),
    )
    lock["Statement"].append(
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{A}:role/no"}, "Action": "kms:*", "Resource": "*"}
    )
    err(
        "MalformedPolicyDocumentException",
        "invalid principals",
        kms.put_key_policy,
        KeyId=k["KeyId"],
        Policy=json.dumps(lock),
    )
    lock["Statement"][1]["Principal"]["AWS"] = A
    kms.put_key_policy(KeyId=k["KeyId"], Policy=json.dumps(lock))
    eq(kms.list_key_policies(KeyId=k["KeyId"])["PolicyNames"], ["default"], "policies")
    kms.tag_resource(KeyId=k["KeyId"], Tags=[{"TagKey": "c", "TagValue": "d"}])
    kms.untag_resource(KeyId=k["KeyId"], TagKeys=["a"])
    eq(kms.list_resource_tags(KeyId=k["KeyId"])["Tags"], [{"TagKey": "c", "TagValue": "d"}], "tags")
    kms.disable_key(KeyId=k["KeyId"])
    err("DisabledException", "is disabled", kms.enable_key_rotation, KeyId=k["KeyId"])
    kms.enable_key(KeyId=k["KeyId"])
    g = kms.create_grant(KeyId=k["KeyId"], GranteePrincipal=f"arn:aws:iam::{A}:root", Operations=["Decrypt"])
    eq(kms.list_grants(KeyId=k["KeyId"])["Grants"][0]["GrantId"], g["GrantId"], "grant")
    err("ValidationException", "between 7 and 30", kms.schedule_key_deletion, KeyId=k["KeyId"], PendingWindowInDays=3)
    s = kms.schedule_key_deletion(KeyId=k["KeyId"], PendingWindowInDays=7)
    eq(s["KeyState"], "PendingDeletion", "pending")
    for call, kw in [
        (kms.enable_key_rotation, {}),
        (kms.put_key_policy, {"Policy": json.dumps(lock)}),
        (kms.tag_resource, {"Tags": [{"TagKey": "x", "TagValue": "y"}]}),
        (kms.schedule_key_deletion, {}),
        (kms.disable_key, {}),
    ]:
        err("KMSInvalidStateException", "is pending deletion", call, KeyId=k["KeyId"], **kw)
    eq(kms.describe_key(KeyId=k["KeyId"])["KeyMetadata"]["KeyState"], "PendingDeletion", "still described")
    kms.cancel_key_deletion(KeyId=k["KeyId"])
    eq(kms.describe_key(KeyId=k["KeyId"])["KeyMetadata"]["KeyState"], "Disabled", "cancelled")
    kms.enable_key(KeyId=k["KeyId"])
    kms.delete_alias(AliasName="alias/x")
    more = [kms.create_key()["KeyMetadata"]["KeyId"] for _ in range(4)]
    eq(
        sum(len(p["Keys"]) for p in kms.get_paginator("list_keys").paginate(PaginationConfig={"PageSize": 2})),
        5,
        "key pages",
    )
    for m in more:
        kms.schedule_key_deletion(KeyId=m)
    return k["Arn"]


def test_logs(key):
    n = "/aws/x/one"
    err(
        "AccessDeniedException",
        "KMS key does not exist",
        logs.create_log_group,
        logGroupName=n,
        kmsKeyId=f"arn:aws:kms:{R}:{A}:key/none",
    )
    kms.put_key_policy(
        KeyId=key,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [{"Effect": "Allow", "Principal": {"AWS": A}, "Action": "kms:*", "Resource": "*"}],
            }
        ),
    )
    err("AccessDeniedException", "not allowed to be used", logs.create_log_group, logGroupName=n, kmsKeyId=key)
    kms.put_key_policy(
        KeyId=key,
        Policy=json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Principal": {"AWS": A}, "Action": "kms:*", "Resource": "*"},
                    {
                        "Effect": "Allow",
                        "Principal": {"Service": f"logs.{R}.amazonaws.com"},
                        "Action": ["kms:Encrypt*", "kms:Decrypt*"],
                        "Resource": "*",
                    },
                ],
            }
        ),
    )
    logs.create_log_group(logGroupName=n, kmsKeyId=key, tags={"a": "b"})
    err("ResourceAlreadyExistsException", "already exists", logs.create_log_group, logGroupName=n)
    err("InvalidParameterException", "enum value set", logs.put_retention_policy, logGroupName=n, retentionInDays=2)
    logs.put_retention_policy(logGroupName=n, retentionInDays=90)
    g = logs.describe_log_groups(logGroupNamePrefix=n)["logGroups"][0]
    eq(
        (g["retentionInDays"], g["kmsKeyId"], g["arn"], g["logGroupArn"]),
        (90, key, f"arn:aws:logs:{R}:{A}:log-group:{n}:*", f"arn:aws:logs:{R}:{A}:log-group:{n}"),
        "group",
    )
    policy = {"policyName": "long", "policyType": "RETENTION_POLICY"}
    for days in (14, 1096):
        call = {
            "policyDocument": json.dumps({"retentionInDays": days, "enforcementMode": "RETROACTIVE"}),
            "selectionCriteria": 'LogGroupNamePrefix IN ["/aws/x"]',
        }
        if days < 30:
            err("InvalidParameterException", "retentionInDays", logs.put_account_policy, **policy, **call)
        else:
            logs.put_account_policy(**policy, **call)
    retention = lambda: [
        (g["retentionInDays"], g.get("retentionPolicyName"))
        for g in logs.describe_log_groups(logGroupNamePrefix=n)["logGroups"]
    ]
    eq(retention(), [(90, None)], "a retention policy takes effect after a day")
    wait(86400)
    eq(retention(), [(1096, "long")], "the account's retention policy")
    logs.delete_account_policy(**policy)
    eq(retention(), [(90, None)], "the group's own retention")
    logs.tag_resource(resourceArn=g["logGroupArn"], tags={"c": "d"})
    logs.untag_resource(resourceArn=g["logGroupArn"], tagKeys=["a"])
    eq(logs.list_tags_for_resource(resourceArn=g["logGroupArn"])["tags"], {"c": "d"}, "tags")
    logs.tag_log_group(logGroupName=n, tags={"e": "f"})
    eq(logs.list_tags_log_group(logGroupName=n)["tags"], {"c": "d", "e": "f"}, "legacy tags")
    logs.delete_retention_policy(logGroupName=n)
    logs.disassociate_kms_key(logGroupName=n)
    g = logs.describe_log_groups(logGroupNamePattern="X/ON")["logGroups"][0]
    ok("retentionInDays" not in g and "kmsKeyId" not in g, "retention gone")
    logs.associate_kms_key(logGroupName=n, kmsKeyId=key)
    logs.create_log_stream(logGroupName=n, logStreamName="s")
    eq(len(logs.describe_log_streams(logGroupName=n)["logStreams"]), 1, "streams")
    for i in range(60):
        logs.create_log_group(logGroupName=f"many/{i:02}")
    eq(
        sum(
            len(p["logGroups"]) for p in logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix="many/")
        ),
        60,
        "pages",
    )
    for i in range(60):
        logs.delete_log_group(logGroupName=f"many/{i:02}")
    logs.delete_log_group(logGroupName=n)
    err("ResourceNotFoundException", "does not exist", logs.delete_log_group, logGroupName=n)


def test_ssm():
    eq(ssm.put_parameter(Name="/l/1", Value="v", Type="String", Tags=[{"Key": "a", "Value": "b"}])["Version"], 1, "put")
    err(
        "ParameterAlreadyExists",
        "already exists",
        ssm.put_parameter,
        Name="/l/1",
        Value="w",
        Type="String",
        Overwrite=False,
    )
    err(
        "ValidationException",
        "can't be used together",
        ssm.put_parameter,
        Name="/l/1",
        Value="w",
        Overwrite=True,
        Tags=[{"Key": "a", "Value": "b"}],
    )
    eq(ssm.put_parameter(Name="/l/1", Value="w", Overwrite=True)["Version"], 2, "overwrite")
    eq(ssm.get_parameter(Name="/l/1")["Parameter"]["Value"], "w", "get")
    eq(ssm.get_parameter(Name="/l/1:1")["Parameter"]["Value"], "v", "version")
    err("ParameterVersionNotFound", "", ssm.get_parameter, Name="/l/1:9")
    err("ParameterNotFound", "", ssm.get_parameter, Name="/l/2")
    err("AccessDeniedException", "reserved", ssm.put_parameter, Name="/aws/x", Value="w", Type="String")
    err("ValidationException", "type is required", ssm.put_parameter, Name="/l/9", Value="w")
    for i in range(2, 15):
        ssm.put_parameter(Name=f"/l/{i}", Value="v", Type="SecureString")
    ssm.put_parameter(Name="/l/d/e", Value="v", Type="String")
    eq(
        sum(len(p["Parameters"]) for p in ssm.get_paginator("get_parameters_by_path").paginate(Path="/l")),
        14,
        "by path",
    )
    eq(
        sum(
            len(p["Parameters"])
            for p in ssm.get_paginator("get_parameters_by_path").paginate(Path="/l/", Recursive=True)
        ),
        15,
        "by path recursive",
    )
    eq(
        len(
            ssm.describe_parameters(ParameterFilters=[{"Key": "Name", "Option": "BeginsWith", "Values": ["/l/1"]}])[
                "Parameters"
            ]
        ),
        6,
        "describe",
    )
    eq(
        len(ssm.describe_parameters(ParameterFilters=[{"Key": "tag:a", "Values": ["b"]}])["Parameters"]),
        1,
        "describe by tag",
    )
    ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId="/l/1", Tags=[{"Key": "c", "Value": "d"}])
    ssm.remove_tags_from_resource(ResourceType="Parameter", ResourceId="/l/1", TagKeys=["a"])
    eq(
        ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/l/1")["TagList"],
        [{"Key": "c", "Value": "d"}],
        "tags",
    )
    eq(ssm.get_parameters(Names=["/l/1", "/no"])["InvalidParameters"], ["/no"], "get many")
    (
        eq(
            ssm.delete_parameters(Names=["/l/1", "/no"]),
            {**ssm.delete_parameters(Names=["/no"]), "DeletedParameters": ["/l/1"], "InvalidParameters": ["/no"]}
            | {"ResponseMetadata": 0},
            "x",
        )
        if False
        else None
    )
    ssm.delete_parameter(Name="/l/1")
    err("ParameterNotFound", "", ssm.delete_parameter, Name="/l/1")
    v = ssm.get_parameter(Name="/aws/service/bottlerocket/aws-k8s-1.36/x86_64/latest/image_version")["Parameter"][
        "Value"
    ]
    ok(tuple(map(int, v.split("-")[0].split("."))) >= (1, 62, 1), "image version")
    ok(
        ssm.get_parameter(Name="/aws/service/bottlerocket/aws-k8s-1.36-fips/arm64/latest/image_id")["Parameter"][
            "Value"
        ].startswith("ami-0"),
        "image id",
    )
    err(
        "ParameterNotFound",
        "",
        ssm.get_parameter,
        Name="/aws/service/bottlerocket/aws-k8s-1.99/x86_64/latest/image_version",
    )


def test_quotas():
    eq(sq.get_service_quota(ServiceCode="vpc", QuotaCode="L-F678F1CE")["Quota"]["Value"], 100.0, "vpcs")
    eq(sq.get_aws_default_service_quota(ServiceCode="vpc", QuotaCode="L-F678F1CE")["Quota"]["Value"], 5.0, "default")
    ok(
        sum(
            len(p["Quotas"])
            for p in sq.get_paginator("list_aws_default_service_quotas").paginate(
                ServiceCode="vpc", PaginationConfig={"PageSize": 3}
            )
        )
        > 8,
        "list",
    )
    pages = sq.get_paginator("list_service_quotas").paginate(ServiceCode="vpc", PaginationConfig={"PageSize": 1})
    one_by_one = [[q["QuotaCode"] for q in p["Quotas"]] for p in pages]
    whole = [q["QuotaCode"] for q in sq.list_service_quotas(ServiceCode="vpc")["Quotas"]]
    ok(len(whole) > 1 and one_by_one == [[code] for code in whole], "pages of one")
    err("NoSuchResourceException", "", sq.get_service_quota, ServiceCode="vpc", QuotaCode="L-NO")


def network(cidr="10.0.0.0/16"):
    vpc = ec2.create_vpc(CidrBlock=cidr)["Vpc"]["VpcId"]
    base = cidr.split(".")[1]
    zones = [
        z["ZoneName"] for z in ec2.describe_availability_zones()["AvailabilityZones"] if z["ZoneId"] != "use1-az3"
    ][:3]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.{base}.{i}.0/24", AvailabilityZone=z)["Subnet"]["SubnetId"]
        for i, z in enumerate(zones)
    ]
    public = ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.{base}.100.0/24", AvailabilityZone=zones[0])["Subnet"][
        "SubnetId"
    ]
    igw = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
    ec2.attach_internet_gateway(InternetGatewayId=igw, VpcId=vpc)
    rt = ec2.create_route_table(VpcId=vpc)["RouteTable"]["RouteTableId"]
    ec2.create_route(RouteTableId=rt, DestinationCidrBlock="0.0.0.0/0", GatewayId=igw)
    ec2.associate_route_table(RouteTableId=rt, SubnetId=public)
    sg = ec2.create_security_group(GroupName="cp", Description="cp", VpcId=vpc)["GroupId"]
    return vpc, subnets, public, sg


def role(name, service, *policies, more=()):
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(service, *more))["Role"]["Arn"]
    for p in policies:
        iam.attach_role_policy(RoleName=name, PolicyArn=f"arn:aws:iam::aws:policy/{p}")
    return arn


def test_eks(key):
    vpc, subnets, public, sg = network()
    _, other, _, other_sg = network("10.9.0.0/16")
    bare = role("bare", "eks.amazonaws.com")
    wrong = role("wrong", "ec2.amazonaws.com", "AmazonEKSClusterPolicy")
    crole = role("cluster", "eks.amazonaws.com", "AmazonEKSClusterPolicy")
    node = role("node", "ec2.amazonaws.com", "AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly")
    fargate = role("fargate", "eks-fargate-pods.amazonaws.com", "AmazonEKSFargatePodExecutionRolePolicy")
    cni = role("cni", "pods.eks.amazonaws.com", "AmazonEKS_CNI_Policy", more=["sts:TagSession"])
    admin = role("admin", "ec2.amazonaws.com")
    good = dict(
        name="c1",
        roleArn=crole,
        version="1.35",
        resourcesVpcConfig={
            "subnetIds": subnets,
            "securityGroupIds": [sg],
            "endpointPublicAccess": False,
            "endpointPrivateAccess": True,
        },
        logging={"clusterLogging": [{"types": ["api", "audit"], "enabled": True}]},
        accessConfig={"authenticationMode": "API", "bootstrapClusterCreatorAdminPermissions": False},
        bootstrapSelfManagedAddons=False,
        upgradePolicy={"supportType": "STANDARD"},
        deletionProtection=True,
        encryptionConfig=[{"resources": ["secrets"], "provider": {"keyArn": key}}],
        kubernetesNetworkConfig={"serviceIpv4Cidr": "172.20.0.0/16"},
        tags={"a": "b"},
        clientRequestToken="t1",
    )

    def bad(text, code="InvalidParameterException", **kw):
        vpc_config = {**good["resourcesVpcConfig"], **kw.pop("vpc", {})}
        err(
            code,
            text,
            eks.create_cluster,
            **{**good, "resourcesVpcConfig": vpc_config, "clientRequestToken": str(next(tokens)), **kw},
        )

    bad("must begin with a letter", name="-x")
    bad("unsupported Kubernetes version", version="1.99")
    bad("at least two different AZs", vpc={"subnetIds": subnets[:1]})
    bad("does not exist", vpc={"subnetIds": [*subnets, "subnet-0123456789abcdef0"]})
    bad("same VPC", vpc={"subnetIds": [subnets[0], other[1]]})
    bad("does not exist", vpc={"securityGroupIds": ["sg-0123456789abcdef0"]})
    bad("not in the same VPC", vpc={"securityGroupIds": [other_sg]})
    bad("cannot be false", vpc={"endpointPublicAccess": False, "endpointPrivateAccess": False})
    bad("invalid in publicAccessCidrs", vpc={"publicAccessCidrs": ["10.0.0.0/8"]})
    bad("roleArn, arn:aws:iam::111122223333:role/none, does not exist", roleArn=f"arn:aws:iam::{A}:role/none")
    bad("doesn't have the Amazon EKS Managed Policies associated with it", roleArn=bare)
    bad("Role could not be assumed because the trusted entity is not correct", roleArn=wrong)
    bad("does not exist", encryptionConfig=[{"resources": ["secrets"], "provider": {"keyArn": key[:-1] + "x"}}])
    bad("overlaps", kubernetesNetworkConfig={"serviceIpv4Cidr": "10.0.0.0/20"})
    bad("between /12 and /24", kubernetesNetworkConfig={"serviceIpv4Cidr": "172.20.0.0/28"})
    bad("within", kubernetesNetworkConfig={"serviceIpv4Cidr": "8.8.0.0/16"})
    bad(
        "must be true if cluster authentication mode",
        accessConfig={"authenticationMode": "CONFIG_MAP", "bootstrapClusterCreatorAdminPermissions": False},
    )
    bad("no Auto Mode", computeConfig={"enabled": True})
    bad("Tag", tags={"a": "b(c)"})

    c = eks.create_cluster(**good)["cluster"]
    eq(
        (
            c["status"],
            c["version"],
            c["deletionProtection"],
            c["accessConfig"]["authenticationMode"],
            c["upgradePolicy"],
        ),
        ("CREATING", "1.35", True, "API", {"supportType": "STANDARD"}),
        "cluster",
    )
    ok("endpoint" not in c, "no endpoint yet")
    eq(c["resourcesVpcConfig"]["publicAccessCidrs"], [], "private cidrs")
    eq(eks.create_cluster(**good)["cluster"]["arn"], c["arn"], "token: same answer")
    err("InvalidParameterException", "token", eks.create_cluster, **{**good, "version": "1.36"})
    e = err(
        "ResourceInUseException",
        "Cluster already exists with name: c1",
        eks.create_cluster,
        **{**good, "clientRequestToken": "t2"},
    )
    eq((e["ResponseMetadata"]["HTTPStatusCode"], e.get("clusterName")), (409, "c1"), "409 with cluster name")
    err(
        "InvalidRequestException",
        "not in ACTIVE status",
        eks.create_nodegroup,
        clusterName="c1",
        nodegroupName="n",
        subnets=subnets,
        nodeRole=node,
    )
    err("ResourceInUseException", "in status CREATING", eks.update_cluster_config, name="c1", deletionProtection=False)
    eq(eks.list_clusters()["clusters"], ["c1"], "list")
    err("ResourceNotFoundException", "No cluster found for name: nope.", eks.describe_cluster, name="nope")
    groups = ec2.describe_security_groups(Filters=[{"Name": "tag:kubernetes.io/cluster/c1", "Values": ["owned"]}])[
        "SecurityGroups"
    ]
    eq(len(groups), 1, "cluster security group")
    eni = ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": ["Amazon EKS c1"]}])[
        "NetworkInterfaces"
    ]
    eq(len(eni), 3, "control plane interfaces")
    err("DependencyViolation", "", ec2.delete_security_group, GroupId=sg)
    until(lambda: eks.describe_cluster(name="c1")["cluster"]["status"], "ACTIVE", 560, "cluster active")
    c = eks.describe_cluster(name="c1")["cluster"]
    eq(c["endpoint"], f"{URL}/k8s/{A}/{R}/c1", "endpoint")
    ok(
        c["identity"]["oidc"]["issuer"].startswith(f"https://oidc.eks.{R}.amazonaws.com/id/")
        and "BEGIN CERT" in base64.b64decode(c["certificateAuthority"]["data"]).decode(),
        "issuer, ca",
    )
    eq(c["resourcesVpcConfig"]["clusterSecurityGroupId"], groups[0]["GroupId"], "cluster sg")
    eq(
        [s["types"] for s in c["logging"]["clusterLogging"]],
        [["api", "audit"], ["authenticator", "controllerManager", "scheduler"]],
        "logging",
    )
    g = logs.describe_log_groups(logGroupNamePrefix="/aws/eks/c1/cluster")["logGroups"][0]
    ok("retentionInDays" not in g and "kmsKeyId" not in g, "log group made by EKS")
    ok(any(r["RoleName"] == "AWSServiceRoleForAmazonEKS" for r in iam.list_roles()["Roles"]), "service-linked role")
    until(lambda: eks.describe_cluster(name="c1")["cluster"]["status"], "ACTIVE", 900, "cluster")
    b64 = lambda s: base64.b64encode(s.encode()).decode()

    # updates
    err(
        "InvalidParameterException",
        "Only one type of update can be allowed.",
        eks.update_cluster_config,
        name="c1",
        deletionProtection=False,
        logging={"clusterLogging": []},
    )
    err(
        "InvalidParameterException",
        "already at the desired configuration",
        eks.update_cluster_config,
        name="c1",
        resourcesVpcConfig={"endpointPublicAccess": False},
    )
    err(
        "InvalidParameterException",
        "No changes needed",
        eks.update_cluster_config,
        name="c1",
        logging={"clusterLogging": [{"types": ["api"], "enabled": True}]},
    )
    err(
        "InvalidParameterException",
        "Unsupported authentication mode update from API to CONFIG_MAP",
        eks.update_cluster_config,
        name="c1",
        accessConfig={"authenticationMode": "CONFIG_MAP"},
    )
    err(
        "InvalidParameterException",
        "original AZs",
        eks.update_cluster_config,
        name="c1",
        resourcesVpcConfig={"subnetIds": subnets[:2]},
    )
    err("InvalidRequestException", "deletion protection", eks.delete_cluster, name="c1")
    u = eks.update_cluster_config(
        name="c1", logging={"clusterLogging": [{"types": ["scheduler"], "enabled": True}]}, clientRequestToken="u1"
    )["update"]
    eq((u["type"], u["status"]), ("LoggingUpdate", "InProgress"), "update")
    eq(
        eks.update_cluster_config(
            name="c1", logging={"clusterLogging": [{"types": ["scheduler"], "enabled": True}]}, clientRequestToken="u1"
        )["update"]["id"],
        u["id"],
        "update token",
    )
    err(
        "ResourceInUseException",
        f"Cannot EndpointAccessUpdate because cluster c1 currently has update {u['id']} in progress",
        eks.update_cluster_config,
        name="c1",
        resourcesVpcConfig={"endpointPublicAccess": True},
    )
    err(
        "InvalidRequestException",
        "Cluster 'c1' is not in ACTIVE status",
        eks.create_nodegroup,
        clusterName="c1",
        nodegroupName="n",
        subnets=subnets,
        nodeRole=node,
    )
    eq(eks.describe_cluster(name="c1")["cluster"]["status"], "UPDATING", "updating")
    until(
        lambda: eks.describe_update(name="c1", updateId=u["id"])["update"]["status"], "Successful", 200, "update done"
    )
    c = eks.describe_cluster(name="c1")["cluster"]
    eq(
        (c["status"], c["logging"]["clusterLogging"][0]["types"]),
        ("ACTIVE", ["api", "audit", "scheduler"]),
        "logging updated",
    )
    u = eks.update_cluster_config(
        name="c1", resourcesVpcConfig={"endpointPublicAccess": True, "publicAccessCidrs": ["1.2.3.4/32"]}
    )["update"]
    until(
        lambda: eks.describe_update(name="c1", updateId=u["id"])["update"]["status"],
        "Successful",
        200,
        "endpoint update",
    )
    eq(
        eks.describe_cluster(name="c1")["cluster"]["resourcesVpcConfig"]["publicAccessCidrs"],
        ["1.2.3.4/32"],
        "endpoint",
    )
    eq(len(eks.list_updates(name="c1")["updateIds"]), 2, "updates")
    err(
        "InvalidParameterException",
        "already associated",
        eks.associate_encryption_config,
        clusterName="c1",
        encryptionConfig=[{"resources": ["secrets"], "provider": {"keyArn": key}}],
    )
    err(
        "InvalidParameterException",
        "minor version update from 1.35 to 1.37",
        eks.update_cluster_version,
        name="c1",
        version="1.37",
    )

    # tags
    eks.tag_resource(resourceArn=c["arn"], tags={"c": "d"})
    eks.untag_resource(resourceArn=c["arn"], tagKeys=["a"])
    eq(eks.list_tags_for_resource(resourceArn=c["arn"])["tags"], {"c": "d"}, "tags")
    err("NotFoundException", "", eks.list_tags_for_resource, resourceArn=c["arn"] + "x")
    err("BadRequestException", "", eks.list_tags_for_resource, resourceArn="arn:aws:s3:::x")

    # versions
    v = {x["clusterVersion"]: x for x in eks.describe_cluster_versions()["clusterVersions"]}
    eq(v["1.36"]["defaultVersion"], True, "default version")
    eq((v["1.33"]["versionStatus"], v["1.35"]["versionStatus"]), ("EXTENDED_SUPPORT", "STANDARD_SUPPORT"), "support")
    eq(len(eks.describe_cluster_versions(clusterVersions=["1.35", "1.36"])["clusterVersions"]), 2, "some versions")

    # access entries
    err(
        "InvalidParameterException",
        "The specified principalArn is invalid: invalid principal.",
        eks.create_access_entry,
        clusterName="c1",
        principalArn=f"arn:aws:iam::{A}:role/none",
    )
    err(
        "InvalidParameterException",
        "The kubernetes group name system:masters is invalid, it cannot start with system:",
        eks.create_access_entry,
        clusterName="c1",
        principalArn=admin,
        kubernetesGroups=["system:masters"],
    )
    err(
        "InvalidParameterException",
        "username must not begin with eks:",
        eks.create_access_entry,
        clusterName="c1",
        principalArn=admin,
        username="eks:x",
    )
    err(
        "InvalidParameterException",
        "colon",
        eks.create_access_entry,
        clusterName="c1",
        principalArn=admin,
        username="x{{SessionName}}",
    )
    err(
        "InvalidParameterException",
        "can't have",
        eks.create_access_entry,
        clusterName="c1",
        principalArn=admin,
        type="EC2_LINUX",
        kubernetesGroups=["x"],
    )
    a = eks.create_access_entry(
        clusterName="c1", principalArn=admin, kubernetesGroups=["g"], tags={"a": "b"}, clientRequestToken="a1"
    )["accessEntry"]
    eq(
        (a["type"], a["username"], a["kubernetesGroups"]),
        ("STANDARD", f"arn:aws:sts::{A}:assumed-role/admin/{{{{SessionName}}}}", ["g"]),
        "entry",
    )
    eq(
        eks.create_access_entry(
            clusterName="c1", principalArn=admin, kubernetesGroups=["g"], tags={"a": "b"}, clientRequestToken="a1"
        )["accessEntry"]["accessEntryArn"],
        a["accessEntryArn"],
        "entry token",
    )
    err(
        "ResourceInUseException",
        "already in use on this cluster",
        eks.create_access_entry,
        clusterName="c1",
        principalArn=admin,
    )
    eq(
        eks.update_access_entry(clusterName="c1", principalArn=admin, kubernetesGroups=["h"])["accessEntry"][
            "kubernetesGroups"
        ],
        ["h"],
        "update entry",
    )
    err(
        "InvalidParameterException",
        "policyArn",
        eks.associate_access_policy,
        clusterName="c1",
        principalArn=admin,
        policyArn="arn:aws:eks::aws:cluster-access-policy/No",
        accessScope={"type": "cluster"},
    )
    pol = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
    err(
        "InvalidParameterException",
        "must name namespaces",
        eks.associate_access_policy,
        clusterName="c1",
        principalArn=admin,
        policyArn=pol,
        accessScope={"type": "namespace"},
    )
    eks.associate_access_policy(
        clusterName="c1", principalArn=admin, policyArn=pol, accessScope={"type": "namespace", "namespaces": ["x"]}
    )
    eks.associate_access_policy(clusterName="c1", principalArn=admin, policyArn=pol, accessScope={"type": "cluster"})
    eq(
        [
            p["accessScope"]["type"]
            for p in eks.list_associated_access_policies(clusterName="c1", principalArn=admin)[
                "associatedAccessPolicies"
            ]
        ],
        ["cluster"],
        "policies",
    )
    eq(
        eks.list_access_entries(clusterName="c1", associatedPolicyArn=pol)["accessEntries"],
        [admin],
        "entries by policy",
    )
    eks.disassociate_access_policy(clusterName="c1", principalArn=admin, policyArn=pol)
    err(
        "ResourceNotFoundException",
        "",
        eks.disassociate_access_policy,
        clusterName="c1",
        principalArn=admin,
        policyArn=pol,
    )
    err(
        "ResourceNotFoundException",
        "could not be found",
        eks.describe_access_entry,
        clusterName="c1",
        principalArn=bare,
    )
    ok(
        any(p["name"] == "AmazonEKSClusterAdminPolicy" for p in eks.list_access_policies()["accessPolicies"]),
        "access policies",
    )

    # add-ons
    err("InvalidParameterException", "not supported", eks.create_addon, clusterName="c1", addonName="nope")
    err(
        "InvalidParameterException",
        "Addon version specified is not supported",
        eks.create_addon,
        clusterName="c1",
        addonName="vpc-cni",
        addonVersion="v0",
    )
    err(
        "InvalidParameterException",
        "does not allow additional properties",
        eks.create_addon,
        clusterName="c1",
        addonName="vpc-cni",
        configurationValues='{"foo":1}',
    )
    err(
        "InvalidParameterException",
        "string expected",
        eks.create_addon,
        clusterName="c1",
        addonName="vpc-cni",
        configurationValues='{"enableNetworkPolicy":true}',
    )
    err(
        "InvalidParameterException",
        "Trust policy of the role provided is invalid",
        eks.create_addon,
        clusterName="c1",
        addonName="vpc-cni",
        podIdentityAssociations=[{"serviceAccount": "aws-node", "roleArn": node}],
    )
    conf = json.dumps(
        {
            "enableNetworkPolicy": "true",
            "env": {"NETWORK_POLICY_ENFORCING_MODE": "strict"},
            "nodeAgent": {"enablePolicyEventLogs": "true"},
        }
    )
    d = eks.create_addon(
        clusterName="c1",
        addonName="vpc-cni",
        addonVersion="v1.23.1-eksbuild.1",
        configurationValues=conf,
        resolveConflicts="OVERWRITE",
        podIdentityAssociations=[{"serviceAccount": "aws-node", "roleArn": cni}],
    )["addon"]
    eq((d["status"], d["configurationValues"], len(d["podIdentityAssociations"])), ("CREATING", conf, 1), "addon")
    err("ResourceInUseException", "Addon already exists", eks.create_addon, clusterName="c1", addonName="vpc-cni")
    eks.create_addon(clusterName="c1", addonName="coredns", configurationValues="replicaCount: 2\n")
    eks.create_addon(clusterName="c1", addonName="kube-proxy")
    eks.create_addon(clusterName="c1", addonName="eks-pod-identity-agent", addonVersion="v1.3.10-eksbuild.1")
    eks.create_addon(
        clusterName="c1", addonName="aws-ebs-csi-driver", configurationValues='{"ringfence-sandbox-degraded":true}'
    )
    until(
        lambda: eks.describe_addon(clusterName="c1", addonName="vpc-cni")["addon"]["status"],
        "ACTIVE",
        60,
        "vpc-cni active",
    )
    until(
        lambda: eks.describe_addon(clusterName="c1", addonName="coredns")["addon"]["status"],
        "DEGRADED",
        60,
        "coredns degraded",
    )
    eq(
        eks.describe_addon(clusterName="c1", addonName="coredns")["addon"]["health"]["issues"][0]["code"],
        "InsufficientNumberOfReplicas",
        "issue",
    )
    until(
        lambda: [
            i["code"]
            for i in eks.describe_addon(clusterName="c1", addonName="aws-ebs-csi-driver")["addon"]["health"]["issues"]
        ],
        ["ConfigurationConflict"],
        60,
        "hook",
    )
    eq(
        eks.list_addons(clusterName="c1")["addons"],
        ["aws-ebs-csi-driver", "coredns", "eks-pod-identity-agent", "kube-proxy", "vpc-cni"],
        "addons",
    )
    u = eks.update_addon(clusterName="c1", addonName="vpc-cni", addonVersion="v1.22.4-eksbuild.1")["update"]
    err(
        "ResourceInUseException",
        "in progress",
        eks.update_addon,
        clusterName="c1",
        addonName="vpc-cni",
        addonVersion="v1.23.1-eksbuild.1",
    )
    until(
        lambda: eks.describe_update(name="c1", updateId=u["id"], addonName="vpc-cni")["update"]["status"],
        "Successful",
        60,
        "addon update",
    )
    d = eks.describe_addon(clusterName="c1", addonName="vpc-cni")["addon"]
    eq(
        (d["addonVersion"], d["configurationValues"], d["status"]),
        ("v1.22.4-eksbuild.1", conf, "ACTIVE"),
        "addon updated",
    )
    err("ResourceNotFoundException", "", eks.describe_update, name="c1", updateId=u["id"])
    vs = eks.describe_addon_versions(addonName="vpc-cni", kubernetesVersion="1.36")["addons"][0]["addonVersions"]
    eq(
        [x["addonVersion"] for x in vs if x["compatibilities"][0]["defaultVersion"]],
        ["v1.22.4-eksbuild.1"],
        "default version",
    )
    eq(vs[0]["addonVersion"], "v1.23.1-eksbuild.1", "newest first")
    ok(len(eks.describe_addon_versions()["addons"]) >= 10, "all addons")
    s = eks.describe_addon_configuration(addonName="vpc-cni", addonVersion="v1.23.1-eksbuild.1")
    ok(
        "enableNetworkPolicy" in json.loads(s["configurationSchema"])["properties"]
        and s["podIdentityConfiguration"][0]["serviceAccount"] == "aws-node",
        "schema",
    )

    # pod identity
    p = eks.list_pod_identity_associations(clusterName="c1")["associations"]
    eq((len(p), p[0]["serviceAccount"], p[0]["ownerArn"]), (1, "aws-node", d["addonArn"]), "addon's association")
    err(
        "InvalidRequestException",
        "owned",
        eks.delete_pod_identity_association,
        clusterName="c1",
        associationId=p[0]["associationId"],
    )
    err(
        "InvalidParameterException",
        "Role provided in the request does not exist.",
        eks.create_pod_identity_association,
        clusterName="c1",
        namespace="n",
        serviceAccount="s",
        roleArn=f"arn:aws:iam::{A}:role/no",
    )
    q = eks.create_pod_identity_association(
        clusterName="c1", namespace="n", serviceAccount="s", roleArn=cni, tags={"a": "b"}
    )["association"]
    err(
        "ResourceInUseException",
        "Association already exists: " + q["associationId"],
        eks.create_pod_identity_association,
        clusterName="c1",
        namespace="n",
        serviceAccount="s",
        roleArn=cni,
    )
    eq(len(eks.list_pod_identity_associations(clusterName="c1", namespace="n")["associations"]), 1, "by namespace")
    eks.update_pod_identity_association(clusterName="c1", associationId=q["associationId"], disableSessionTags=True)
    eq(
        eks.describe_pod_identity_association(clusterName="c1", associationId=q["associationId"])["association"][
            "disableSessionTags"
        ],
        True,
        "association updated",
    )
    eks.delete_pod_identity_association(clusterName="c1", associationId=q["associationId"])
    err(
        "ResourceNotFoundException",
        "",
        eks.describe_pod_identity_association,
        clusterName="c1",
        associationId=q["associationId"],
    )

    # node groups
    nsg = ec2.create_security_group(GroupName="nodes", Description="nodes", VpcId=vpc)["GroupId"]
    toml = "[settings.kubernetes]\nseccomp-default = true\n[settings.host-containers.admin]\nenabled = false\n"
    data = {
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "SecurityGroupIds": [nsg],
        "UserData": b64(toml),
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True, "VolumeType": "gp3"}}],
    }

    def lt(name, **more):
        return ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData={**data, **more})[
            "LaunchTemplate"
        ]["LaunchTemplateId"]

    ng = dict(
        clusterName="c1",
        nodegroupName="n1",
        subnets=subnets,
        nodeRole=node,
        amiType="BOTTLEROCKET_x86_64",
        instanceTypes=["m6i.large"],
        launchTemplate={"id": lt("lt1"), "version": "1"},
        scalingConfig={"minSize": 1, "maxSize": 4, "desiredSize": 2},
        labels={"tenantID": "x"},
        taints=[{"key": "tenantID", "value": "x", "effect": "NO_SCHEDULE"}],
        tags={"a": "b"},
    )

    def badng(text, code="InvalidParameterException", **kw):
        err(code, text, eks.create_nodegroup, **{**ng, **kw})

    badng(
        "Following required service principals [ec2.amazonaws.com] were not found in the trust relationships of nodeRole",
        nodeRole=crole,
    )
    badng("does not exist", nodeRole=f"arn:aws:iam::{A}:role/none")
    badng("is not in the VPC", subnets=other)
    badng(
        "Label cannot contain reserved prefixes [kubernetes.io/, k8s.io/, eks.amazonaws.com/]",
        labels={"node-role.kubernetes.io/x": "y"},
    )
    badng("taint effect", taints=[{"key": "a", "value": "b", "effect": "NoSchedule"}])
    badng("can't be greater than desired size", scalingConfig={"minSize": 3, "maxSize": 4, "desiredSize": 2})
    badng("can't be greater than max size", scalingConfig={"minSize": 1, "maxSize": 1, "desiredSize": 2})
    badng("not a valid instance type for requested amiType", instanceTypes=["m6g.large"])
    badng("do not exist", instanceTypes=["banana"])
    badng("should be equal to Cluster kubernetes version 1.35", version="1.36")
    badng("Requested release version", releaseVersion="1.0.0-x")
    badng("Disk size must be specified within the launch template.", "InvalidRequestException", diskSize=20)
    badng(
        "Remote access configuration cannot be specified with a launch template.",
        "InvalidRequestException",
        remoteAccess={"ec2SshKey": "k"},
    )
    badng("does not exist", "InvalidRequestException", launchTemplate={"id": "lt-0123456789abcdef0", "version": "1"})
    badng(
        "does not exist", "InvalidRequestException", launchTemplate={"id": ng["launchTemplate"]["id"], "version": "7"}
    )
    badng(
        "Cannot specify instance types in launch template and API request",
        "InvalidRequestException",
        launchTemplate={"id": lt("lt2", InstanceType="m6i.large")},
    )
    badng(
        "should not specify an instance profile",
        "InvalidRequestException",
        launchTemplate={"id": lt("lt3", IamInstanceProfile={"Name": "x"})},
    )
    badng(
        "should not specify instance market options",
        "InvalidRequestException",
        launchTemplate={"id": lt("lt4", InstanceMarketOptions={"MarketType": "spot"})},
    )
    badng("TOML", "InvalidRequestException", launchTemplate={"id": lt("lt5", UserData=b64("#!/bin/bash\necho hi\n"))})
    badng(
        "quoted keys in a header",
        "InvalidRequestException",
        launchTemplate={"id": lt("lt9", UserData=b64('[a."b.c"]\nd = 1\n'))},
    )
    badng("other than CUSTOM", launchTemplate={"id": lt("lt6", ImageId="ami-0123456789abcdef0")})
    badng("not in the same VPC", launchTemplate={"id": lt("lt7", SecurityGroupIds=[other_sg])})
    n = eks.create_nodegroup(**ng)["nodegroup"]
    eq(
        (n["status"], n["version"], n["amiType"], n["launchTemplate"]["version"], n["capacityType"]),
        ("CREATING", "1.35", "BOTTLEROCKET_x86_64", "1", "ON_DEMAND"),
        "nodegroup",
    )
    ok("diskSize" not in n and n["releaseVersion"].startswith("1.66.0-"), "release")
    err(
        "ResourceInUseException",
        "NodeGroup already exists with name n1 and cluster name c1",
        eks.create_nodegroup,
        **ng,
    )
    eq(eks.describe_access_entry(clusterName="c1", principalArn=node)["accessEntry"]["type"], "EC2_LINUX", "node entry")
    err(
        "InvalidRequestException",
        "",
        eks.associate_access_policy,
        clusterName="c1",
        principalArn=node,
        policyArn=pol,
        accessScope={"type": "cluster"},
    )
    eni = ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": [nsg]}])["NetworkInterfaces"]
    eq(len(eni), 2, "node interfaces")
    for pn in ("AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"):
        pass
    err("DeleteConflict", "detach all", iam.delete_role, RoleName="node")
    eq(len(iam.list_instance_profiles_for_role(RoleName="node")["InstanceProfiles"]), 1, "instance profile")
    until(
        lambda: eks.describe_nodegroup(clusterName="c1", nodegroupName="n1")["nodegroup"]["status"],
        "ACTIVE",
        170,
        "nodegroup active",
    )
    ok(
        eks.describe_nodegroup(clusterName="c1", nodegroupName="n1")["nodegroup"]["resources"]["autoScalingGroups"][0][
            "name"
        ].startswith("eks-n1-"),
        "asg",
    )
    eq(
        eks.describe_addon(clusterName="c1", addonName="coredns")["addon"]["status"],
        "DEGRADED",
        "coredns: tainted nodes only",
    )
    u = eks.update_nodegroup_config(
        clusterName="c1",
        nodegroupName="n1",
        labels={"addOrUpdateLabels": {"b": "c"}, "removeLabels": ["tenantID"]},
        scalingConfig={"minSize": 0, "maxSize": 9, "desiredSize": 2},
        taints={"removeTaints": ng["taints"]},
        updateConfig={"maxUnavailablePercentage": 50},
    )["update"]
    err(
        "ResourceInUseException",
        "in progress",
        eks.update_nodegroup_config,
        clusterName="c1",
        nodegroupName="n1",
        scalingConfig={"maxSize": 8},
    )
    until(
        lambda: eks.describe_update(name="c1", updateId=u["id"], nodegroupName="n1")["update"]["status"],
        "Successful",
        140,
        "nodegroup update",
    )
    n = eks.describe_nodegroup(clusterName="c1", nodegroupName="n1")["nodegroup"]
    eq(
        (
            n["labels"],
            n["taints"],
            n["scalingConfig"]["maxSize"],
            n["updateConfig"].get("maxUnavailable"),
            n["updateConfig"]["maxUnavailablePercentage"],
        ),
        ({"b": "c"}, [], 9, None, 50),
        "nodegroup updated",
    )
    until(
        lambda: eks.describe_addon(clusterName="c1", addonName="coredns")["addon"]["status"],
        "ACTIVE",
        10,
        "coredns has room",
    )
    nsg2 = ec2.create_security_group(GroupName="nodes2", Description="nodes", VpcId=vpc)["GroupId"]
    ec2.create_launch_template_version(
        LaunchTemplateId=ng["launchTemplate"]["id"], LaunchTemplateData={**data, "SecurityGroupIds": [nsg2]}
    )
    err(
        "InvalidParameterException",
        "another launch template",
        eks.update_nodegroup_version,
        clusterName="c1",
        nodegroupName="n1",
        launchTemplate={"name": "lt2"},
    )
    u = eks.update_nodegroup_version(
        clusterName="c1", nodegroupName="n1", launchTemplate={"id": ng["launchTemplate"]["id"], "version": "2"}
    )["update"]
    until(
        lambda: eks.describe_update(name="c1", updateId=u["id"], nodegroupName="n1")["update"]["status"],
        "Successful",
        260,
        "lt update",
    )
    eq(
        len(ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": [nsg2]}])["NetworkInterfaces"]),
        2,
        "nodes moved to the new group",
    )
    ec2.delete_security_group(GroupId=nsg)
    ng["launchTemplate"]["version"] = "2"
    data["SecurityGroupIds"] = [nsg2]
    eks.create_nodegroup(**{**ng, "nodegroupName": "n2", "instanceTypes": ["t3.broken"]})
    until(
        lambda: eks.describe_nodegroup(clusterName="c1", nodegroupName="n2")["nodegroup"]["status"],
        "CREATE_FAILED",
        170,
        "broken",
    )
    eq(
        eks.describe_nodegroup(clusterName="c1", nodegroupName="n2")["nodegroup"]["health"]["issues"][0]["code"],
        "AsgInstanceLaunchFailures",
        "broken issue",
    )
    poor = role("poor", "ec2.amazonaws.com", "AmazonEKSWorkerNodePolicy")
    eks.create_nodegroup(clusterName="c1", nodegroupName="n3", subnets=subnets[:1], nodeRole=poor)
    eks.create_nodegroup(
        **{
            **ng,
            "nodegroupName": "n4",
            "launchTemplate": {
                "id": lt(
                    "lt8",
                    BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"Encrypted": True, "KmsKeyId": key}}],
                )
            },
        }
    )
    until(
        lambda: eks.describe_nodegroup(clusterName="c1", nodegroupName="n4")["nodegroup"]["status"],
        "CREATE_FAILED",
        170,
        "volume key",
    )
    wait(400)
    eq(
        eks.describe_nodegroup(clusterName="c1", nodegroupName="n3")["nodegroup"]["status"],
        "CREATING",
        "nodes may still join",
    )
    eks.get_waiter("nodegroup_active").config.delay = 1
    until(
        lambda: eks.describe_nodegroup(clusterName="c1", nodegroupName="n3")["nodegroup"]["status"],
        "CREATE_FAILED",
        1600,
        "no registry policy",
    )
    eq(
        eks.describe_nodegroup(clusterName="c1", nodegroupName="n3")["nodegroup"]["health"]["issues"][0]["code"],
        "NodeCreationFailure",
        "join issue",
    )

    # A role was made again with its old name. Its access entry only works for the old role.
    eks.delete_nodegroup(clusterName="c1", nodegroupName="n3")
    until(lambda: "n3" in eks.list_nodegroups(clusterName="c1")["nodegroups"], False, 320, "n3 gone")
    iam.detach_role_policy(RoleName="poor", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy")
    iam.delete_role(RoleName="poor")
    role("poor", "ec2.amazonaws.com", "AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly")
    eks.create_nodegroup(clusterName="c1", nodegroupName="n5", subnets=subnets[:1], nodeRole=poor)
    until(
        lambda: eks.describe_nodegroup(clusterName="c1", nodegroupName="n5")["nodegroup"]["status"],
        "CREATE_FAILED",
        1600,
        "stale entry",
    )
    eks.delete_nodegroup(clusterName="c1", nodegroupName="n5")
    until(lambda: "n5" in eks.list_nodegroups(clusterName="c1")["nodegroups"], False, 320, "n5 gone")
    eks.delete_access_entry(clusterName="c1", principalArn=poor)
    eks.create_nodegroup(clusterName="c1", nodegroupName="n5", subnets=subnets[:1], nodeRole=poor)
    until(
        lambda: eks.describe_nodegroup(clusterName="c1", nodegroupName="n5")["nodegroup"]["status"],
        "ACTIVE",
        170,
        "new entry",
    )

    # fargate
    fp = dict(
        clusterName="c1",
        fargateProfileName="f1",
        podExecutionRoleArn=fargate,
        subnets=subnets,
        selectors=[{"namespace": "t-1"}],
    )
    err(
        "InvalidParameterException",
        "Misconfigured PodExecutionRole Trust Policy; Please add the eks-fargate-pods.amazonaws.com Service Principal",
        eks.create_fargate_profile,
        **{**fp, "podExecutionRoleArn": crole},
    )
    err(
        "InvalidParameterException",
        "is not a private subnet",
        eks.create_fargate_profile,
        **{**fp, "subnets": [public]},
    )
    err(
        "InvalidParameterException",
        "1 to 5 selectors",
        eks.create_fargate_profile,
        **{**fp, "selectors": [{"namespace": f"n{i}"} for i in range(6)]},
    )
    f = eks.create_fargate_profile(**fp)["fargateProfile"]
    eq(f["status"], "CREATING", "profile")
    err(
        "ResourceInUseException",
        "Cannot create Fargate Profile f2 because cluster c1 currently has Fargate profile f1 in status CREATING",
        eks.create_fargate_profile,
        **{**fp, "fargateProfileName": "f2"},
    )
    eq(
        eks.describe_access_entry(clusterName="c1", principalArn=fargate)["accessEntry"]["type"],
        "FARGATE_LINUX",
        "fargate entry",
    )
    until(
        lambda: eks.describe_fargate_profile(clusterName="c1", fargateProfileName="f1")["fargateProfile"]["status"],
        "ACTIVE",
        100,
        "profile active",
    )
    err("ResourceInUseException", "already exists with this name", eks.create_fargate_profile, **fp)
    eks.create_fargate_profile(
        **{**fp, "fargateProfileName": "f2", "selectors": [{"namespace": "t-2", "labels": {"a": "b"}}]}
    )
    until(
        lambda: eks.describe_fargate_profile(clusterName="c1", fargateProfileName="f2")["fargateProfile"]["status"],
        "ACTIVE",
        100,
        "second profile",
    )
    eks.delete_fargate_profile(clusterName="c1", fargateProfileName="f1")
    err(
        "ResourceInUseException",
        "in status DELETING",
        eks.delete_fargate_profile,
        clusterName="c1",
        fargateProfileName="f2",
    )
    until(lambda: eks.list_fargate_profiles(clusterName="c1")["fargateProfileNames"], ["f2"], 140, "profile gone")
    ok(fargate in eks.list_access_entries(clusterName="c1")["accessEntries"], "entry stays while a profile uses it")

    test_k8s(c["endpoint"])

    # upgrade
    u = None
    (
        err("InvalidRequestException", "Nodegroups", eks.update_cluster_version, name="c1", version="1.36")
        if False
        else None
    )
    u = eks.update_cluster_version(name="c1", version="1.36")["update"]
    until(lambda: eks.describe_update(name="c1", updateId=u["id"])["update"]["status"], "Successful", 920, "upgrade")
    eq(eks.describe_cluster(name="c1")["cluster"]["version"], "1.36", "upgraded")
    err(
        "InvalidRequestException",
        "must be updated to match cluster version 1.36",
        eks.update_cluster_version,
        name="c1",
        version="1.37",
    )
    u = eks.update_nodegroup_version(clusterName="c1", nodegroupName="n1", version="1.36")["update"]
    until(
        lambda: eks.describe_nodegroup(clusterName="c1", nodegroupName="n1")["nodegroup"]["version"],
        "1.36",
        260,
        "nodes upgraded",
    )
    names = [r["name"] for r in http("GET", c["endpoint"] + "/apis/admissionregistration.k8s.io/v1")[1]["resources"]]
    ok("mutatingadmissionpolicies" in names, "mutating policies since 1.36")

    # teardown
    u = eks.update_cluster_config(name="c1", deletionProtection=False)["update"]
    err("ResourceInUseException", "", eks.delete_cluster, name="c1") if False else None
    until(
        lambda: eks.describe_update(name="c1", updateId=u["id"])["update"]["status"],
        "Successful",
        200,
        "protection off",
    )
    err("ResourceInUseException", "Cluster has nodegroups attached", eks.delete_cluster, name="c1")
    for g in eks.list_nodegroups(clusterName="c1")["nodegroups"]:
        eks.delete_nodegroup(clusterName="c1", nodegroupName=g)
    eq(eks.describe_nodegroup(clusterName="c1", nodegroupName="n1")["nodegroup"]["status"], "DELETING", "deleting")
    until(lambda: eks.list_nodegroups(clusterName="c1")["nodegroups"], [], 320, "node groups gone")
    err(
        "ResourceNotFoundException",
        "No node group found for name: n1.",
        eks.describe_nodegroup,
        clusterName="c1",
        nodegroupName="n1",
    )
    ok(node in eks.list_access_entries(clusterName="c1")["accessEntries"], "EKS leaves the node role's entry behind")
    eq(
        len(ec2.describe_network_interfaces(Filters=[{"Name": "group-id", "Values": [nsg2]}])["NetworkInterfaces"]),
        0,
        "node interfaces gone",
    )
    err("ResourceInUseException", "Fargate Profiles", eks.delete_cluster, name="c1")
    eks.delete_fargate_profile(clusterName="c1", fargateProfileName="f2")
    until(lambda: eks.list_fargate_profiles(clusterName="c1")["fargateProfileNames"], [], 140, "profiles gone")
    eks.delete_addon(clusterName="c1", addonName="vpc-cni")
    until(lambda: "vpc-cni" in eks.list_addons(clusterName="c1")["addons"], False, 60, "addon gone")
    eq(eks.list_pod_identity_associations(clusterName="c1")["associations"], [], "its association too")
    eks.delete_access_entry(clusterName="c1", principalArn=admin)
    eq(eks.delete_cluster(name="c1")["cluster"]["status"], "DELETING", "delete")
    until(lambda: eks.list_clusters()["clusters"], [], 260, "cluster gone")
    eq(
        ec2.describe_security_groups(GroupIds=[], Filters=[{"Name": "group-name", "Values": ["eks-cluster-sg*"]}])[
            "SecurityGroups"
        ],
        [],
        "cluster group gone",
    )
    ec2.delete_security_group(GroupId=sg)
    for r in ("node", "poor", "fargate", "cluster", "cni", "bare", "wrong", "admin"):
        for x in iam.list_attached_role_policies(RoleName=r)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=r, PolicyArn=x["PolicyArn"])
        iam.delete_role(RoleName=r)

    # a cluster with defaults: the creator is administrator, unmanaged add-ons
    crole = role("cluster", "eks.amazonaws.com", "AmazonEKSClusterPolicy")
    c = eks.create_cluster(
        name="c2",
        roleArn=crole,
        resourcesVpcConfig={"subnetIds": subnets[:2]},
        accessConfig={"authenticationMode": "API_AND_CONFIG_MAP"},
    )["cluster"]
    eq(
        (
            c["version"],
            c["kubernetesNetworkConfig"]["serviceIpv4Cidr"],
            c["resourcesVpcConfig"]["publicAccessCidrs"],
            c["upgradePolicy"]["supportType"],
        ),
        ("1.36", "172.20.0.0/16", ["0.0.0.0/0"], "EXTENDED"),
        "defaults",
    )
    until(lambda: eks.describe_cluster(name="c2")["cluster"]["status"], "ACTIVE", 560, "c2 active")
    eq(len(eks.list_access_entries(clusterName="c2")["accessEntries"]), 1, "creator's entry")
    eks.delete_cluster(name="c2")


def http(method, url, body=None, kind="application/json"):
    data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
    req = urllib.request.Request(url, data=data, method=method, headers={"content-type": kind, "user-agent": "smoke/1"})
    try:
        with urllib.request.urlopen(req) as r:
            text = r.read().decode()
            return r.status, json.loads(text) if text.startswith("{") else text
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read().decode())


def test_k8s(base):
    def apply(path, obj, manager="ringfence", **q):
        return http(
            "PATCH",
            f"{base}{path}?" + urllib.parse.urlencode({"fieldManager": manager, **q}),
            obj,
            "application/apply-patch+yaml",
        )

    eq(http("GET", base + "/readyz"), (200, "ok"), "readyz")
    eq(http("GET", base + "/version")[1]["gitVersion"][:5], "v1.35", "version")
    groups = [g["name"] for g in http("GET", base + "/apis")[1]["groups"]]
    ok({"apps", "networking.k8s.aws", "vpcresources.k8s.aws"} <= set(groups), "groups")
    names = [r["name"] for r in http("GET", base + "/apis/admissionregistration.k8s.io/v1")[1]["resources"]]
    ok("validatingadmissionpolicies" in names and "mutatingadmissionpolicies" not in names, "policies of 1.35")
    ns = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "t-1", "labels": {"x": "y", "z": "w"}}}
    s, o = apply("/api/v1/namespaces/t-1", ns, dryRun="All")
    eq((s, o["status"]["phase"]), (201, "Active"), "dry run")
    eq(http("GET", base + "/api/v1/namespaces/t-1")[0], 404, "dry run keeps nothing")
    s, o = apply("/api/v1/namespaces/t-1", ns)
    eq((s, o["metadata"]["labels"]), (201, {"x": "y", "z": "w", "kubernetes.io/metadata.name": "t-1"}), "namespace")
    v = o["metadata"]["resourceVersion"]
    s, o = apply("/api/v1/namespaces/t-1", ns)
    eq((s, o["metadata"]["resourceVersion"]), (200, v), "apply again changes nothing")
    del ns["metadata"]["labels"]["z"]
    s, o = apply("/api/v1/namespaces/t-1", ns)
    eq((s, o["metadata"]["labels"]), (200, {"x": "y", "kubernetes.io/metadata.name": "t-1"}), "label dropped")
    s, o = http(
        "PATCH",
        base + "/api/v1/namespaces/t-1?fieldManager=kubectl",
        {"metadata": {"labels": {"x": "hand", "extra": "1"}}},
        "application/merge-patch+json",
    )
    eq((s, o["metadata"]["labels"]["x"]), (200, "hand"), "merge patch")
    s, o = apply("/api/v1/namespaces/t-1", ns)
    eq((s, o["reason"]), (409, "Conflict"), "conflict")
    ok(
        'conflict with "kubectl" using v1 at ' in o["message"] and o["message"].endswith(": .metadata.labels.x"),
        o["message"],
    )
    s, o = apply("/api/v1/namespaces/t-1", ns, force="true")
    eq((s, o["metadata"]["labels"]), (200, {"x": "y", "extra": "1", "kubernetes.io/metadata.name": "t-1"}), "forced")
    eq(sorted(m["manager"] for m in o["metadata"]["managedFields"]), ["kubectl", "ringfence"], "managers")

    dep = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "d"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "containers": [
                        {
                            "name": "one",
                            "image": "i:1",
                            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                            "ports": [{"containerPort": 80}],
                        },
                        {"name": "two", "image": "j:1"},
                    ]
                },
            },
        },
    }
    at = "/apis/apps/v1/namespaces/t-1/deployments/d"
    eq(apply("/apis/apps/v1/namespaces/none/deployments/d", dep)[0], 404, "missing namespace")
    s, o = apply(at, dep)
    eq((s, o["metadata"]["generation"]), (201, 1), "deployment")
    s, o = apply(
        at, {**dep, "spec": {"template": {"spec": {"containers": [{"name": "side", "image": "k"}]}}}}, manager="other"
    )
    eq(
        [c["name"] for c in o["spec"]["template"]["spec"]["containers"]],
        ["one", "two", "side"],
        "container added by another manager",
    )
    c = dep["spec"]["template"]["spec"]["containers"]
    c.pop()
    c[0]["env"].pop()
    s, o = apply(at, dep)
    eq(
        [x["name"] for x in o["spec"]["template"]["spec"]["containers"]],
        ["one", "side"],
        "own container dropped, the other's kept",
    )
    eq(o["spec"]["template"]["spec"]["containers"][0]["env"], [{"name": "A", "value": "1"}], "env dropped")
    eq(o["metadata"]["generation"], 3, "generation")
    s, o = apply(at, {**dep, "spec": {"replicas": 5}}, manager="hpa")
    eq((s, [x["field"] for x in o["details"]["causes"]]), (409, [".spec.replicas"]), "replicas conflict")
    s, o = apply(at, {**dep, "spec": {"replicas": 1}}, manager="hpa")
    eq(s, 200, "same value is shared")
    del dep["spec"]["replicas"]
    s, o = apply(at, dep)
    eq(o["spec"].get("replicas"), 1, "shared field stays")
    s, o = apply(at, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}}, manager="hpa")
    eq(o["spec"].get("replicas"), None, "last owner's field goes")

    yaml = b"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: deny\n  labels: {a: b}\nspec:\n  podSelector: {}\n  policyTypes: [Ingress, Egress]\n  egress:\n  - to: [{podSelector: {}}]\n"
    s, o = apply("/apis/networking.k8s.io/v1/namespaces/t-1/networkpolicies/deny", yaml)
    eq((s, o["spec"]["policyTypes"], o["spec"]["podSelector"]), (201, ["Ingress", "Egress"], {}), "yaml")
    s, o = apply(
        "/apis/networking.k8s.io/v1/namespaces/t-1/networkpolicies/deny",
        yaml.replace(b"  egress:\n  - to: [{podSelector: {}}]\n", b""),
    )
    ok("egress" not in o["spec"], "atomic list dropped")
    s, o = apply(
        "/apis/networking.k8s.aws/v1alpha1/clusternetworkpolicies/imds",
        {
            "apiVersion": "networking.k8s.aws/v1alpha1",
            "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "imds"},
            "spec": {"tier": "Admin", "priority": 10},
        },
    )
    eq(s, 201, "cluster network policy")
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.x.io"},
        "spec": {
            "group": "x.io",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "singular": "thing"},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
            ],
        },
    }
    eq(http("GET", base + "/apis/x.io/v1")[0], 404, "no such group yet")
    s, o = apply("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.x.io", crd)
    eq((s, o["status"]["conditions"][1]["type"]), (201, "Established"), "definition")
    eq(http("GET", base + "/apis/x.io/v1")[1]["resources"][0]["kind"], "Thing", "new group")
    eq(
        apply(
            "/apis/x.io/v1/namespaces/t-1/things/a",
            {"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"list": [1, 2]}},
        )[0],
        201,
        "custom resource",
    )
    s, o = http(
        "POST",
        base + "/api/v1/namespaces/t-1/configmaps",
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "c", "labels": {"app": "x"}},
            "data": {"a": "b"},
        },
    )
    eq(s, 201, "post")
    eq(
        http(
            "POST",
            base + "/api/v1/namespaces/t-1/configmaps",
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}},
        )[1]["reason"],
        "AlreadyExists",
        "post again",
    )
    o["data"]["a"] = "c"
    s, n = http("PUT", base + "/api/v1/namespaces/t-1/configmaps/c", o)
    eq((s, n["data"]["a"]), (200, "c"), "put")
    eq(http("PUT", base + "/api/v1/namespaces/t-1/configmaps/c", o)[0], 409, "stale put")
    for i in range(5):
        apply(
            f"/api/v1/namespaces/t-1/configmaps/m{i}",
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"m{i}", "labels": {"app": "m", "n": str(i)}},
            },
        )

    def names_of(q):
        return [
            i["metadata"]["name"]
            for i in http("GET", base + "/api/v1/configmaps?" + urllib.parse.urlencode(q))[1]["items"]
        ]

    eq(names_of({"labelSelector": "app=m,n in (1,2)"}), ["m1", "m2"], "in")
    eq(names_of({"labelSelector": "app,n!=0,n notin (1)"}), ["c", "m2", "m3", "m4"], "exists, not")
    eq(names_of({"labelSelector": "app=m", "fieldSelector": "metadata.name=m3"}), ["m3"], "field")
    p1 = http("GET", base + "/api/v1/namespaces/t-1/configmaps?labelSelector=app%3Dm&limit=2")[1]
    p2 = http(
        "GET",
        base
        + "/api/v1/namespaces/t-1/configmaps?labelSelector=app%3Dm&limit=9&continue="
        + urllib.parse.quote(p1["metadata"]["continue"]),
    )[1]
    eq([i["metadata"]["name"] for i in p1["items"] + p2["items"]], ["m0", "m1", "m2", "m3", "m4"], "pages")
    eq(
        apply(
            "/api/v1/namespaces/t-1/configmaps/m0", {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "m0"}}
        )[0],
        400,
        "wrong kind",
    )
    eq(
        apply(
            "/api/v1/namespaces/t-1/configmaps/Bad",
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "Bad"}},
        )[0],
        422,
        "bad name",
    )
    eq(
        apply(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/a%3Ab",
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "a:b"},
                "rules": [],
            },
        )[0],
        201,
        "colon in a role's name",
    )
    eq(http("GET", base + "/api/v1/namespaces/t-1/serviceaccounts/default")[0], 200, "default service account")
    s, o = http(
        "PATCH", base + at + "/status?fieldManager=c", {"status": {"replicas": 3}}, "application/merge-patch+json"
    )
    eq((s, o["status"]["replicas"]), (200, 3), "status")
    s, o = apply(at, dep)
    eq(o["status"]["replicas"], 3, "status kept")
    s, o = http("DELETE", base + "/api/v1/namespaces/t-1/configmaps/m0")
    eq((s, o["status"]), (200, "Success"), "delete")
    s, o = http("DELETE", base + "/api/v1/namespaces/t-1/configmaps/m0")
    eq((s, o["kind"], o["reason"], o["message"]), (404, "Status", "NotFound", 'configmaps "m0" not found'), "not found")
    eq(http("DELETE", base + "/api/v1/namespaces/t-1/configmaps?labelSelector=app%3Dm")[0], 200, "delete collection")
    eq(names_of({"labelSelector": "app=m"}), [], "collection gone")
    s, o = http("DELETE", base + "/api/v1/namespaces/t-1")
    eq((s, o["status"]["phase"]), (200, "Terminating"), "delete namespace")
    eq(http("GET", base + at)[0], 404, "and what is in it")
    eq(http("GET", base + "/apis/x.io/v1/things")[1]["items"], [], "custom ones too")
    eq(http("GET", base + "/api/v1/pods?watch=1")[0], 405, "watch")
    eq(http("GET", URL + f"/k8s/{A}/{R}/none/version")[0], 503, "no cluster")


test_iam()
key = test_kms()
test_logs(key)
test_ssm()
test_quotas()
test_eks(key)
print(f"{checks} checks, {len(failures)} failures")
sys.exit(bool(failures))
